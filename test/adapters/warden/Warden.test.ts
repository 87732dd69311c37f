/** The real warden, as a process, over a client that does one thing wrong. */
import { type ChildProcess, spawn } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { waitUntil } from "../../support/Program.ts"
import { describeWith } from "../../support/requires.ts"

const program = join(import.meta.dirname, "FakeClient.ts")
const patienceMs = 60_000

let folder = ""
let children: Array<ChildProcess> = []

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "postern-warden-"))
  children = []
})
afterEach(() => {
  for (const child of children) child.kill("SIGKILL")
  for (const pid of lives()) endIfAlive(pid)
  rmSync(folder, { recursive: true, force: true })
})

const isAlive = (pid: number): boolean => {
  try {
    // A process that has ended and is not yet reaped counts as gone.
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"))
  } catch {
    return false
  }
}

const endIfAlive = (pid: number): void => {
  if (isAlive(pid)) process.kill(pid, "SIGKILL")
}

/** The process ids of all clients so far. A line counts when it is whole: no number at all would be this process's group. */
const lives = (): ReadonlyArray<number> => {
  const path = join(folder, "lives")
  return existsSync(path) ? readFileSync(path, "utf8").split("\n").slice(0, -1).map(Number) : []
}

const start = (mode: string, environment: Readonly<Record<string, string>> = {}) => {
  const child = spawn(process.execPath, ["--no-warnings", program, mode, join(folder, "lives")], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { PATH: process.env["PATH"] ?? "", ...environment }
  })
  children.push(child)
  const said = { out: "", err: "" }
  child.stdout.setEncoding("latin1").on("data", (text: string) => {
    said.out += text
  })
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    said.err += text
  })
  const ended = async () => {
    await waitUntil(
      "the warden's end",
      () => child.exitCode !== null || child.signalCode !== null,
      patienceMs,
      () => said.err
    )
    return child.exitCode ?? child.signalCode
  }
  const until = (what: string, holds: () => boolean) => waitUntil(what, holds, patienceMs, () => said.err)
  return { child, said, ended, until }
}

describe("the warden", () => {
  it("kills a client whose event loop stands still, and starts another", async () => {
    const warden = start("spin")
    await warden.until("a second life", () => lives().length >= 2)
    await warden.until("its reason", () => /event loop stands still/.test(warden.said.err))
    expect(isAlive(lives()[0] as number)).toBe(false)
  })

  it("starts a client again that was killed", async () => {
    const warden = start("work")
    await warden.until("a life", () => lives().length === 1)
    process.kill(lives()[0] as number, "SIGKILL")
    await warden.until("a second life", () => lives().length === 2)
    await warden.until("how the first ended", () => /by SIGKILL/.test(warden.said.err))
  })

  it.each(["garbage", "early"])("kills a client that breaks the protocol (%s)", async (mode) => {
    const warden = start(mode)
    await warden.until("a second life", () => lives().length >= 2)
    await warden.until("its reason", () => /does not keep to the protocol/.test(warden.said.err))
  })

  it.each([
    ["exit-78", 78],
    ["exit-2", 2],
    ["exit-0", 0],
    ["once", 1]
  ])("ends with a client that is done (%s)", async (mode, code) => {
    const warden = start(mode)
    expect(await warden.ended()).toBe(code)
    expect(lives()).toHaveLength(1)
  })

  it("passes SIGTERM on, and kills what does not end by it", async () => {
    const warden = start("deaf")
    await warden.until("a life", () => lives().length === 1)
    warden.child.kill("SIGTERM")
    expect(await warden.ended()).not.toBe(0)
    expect(isAlive(lives()[0] as number)).toBe(false)
    expect(lives()).toHaveLength(1)
  })

  it("takes its client with it when it is killed", async () => {
    const warden = start("work")
    await warden.until("a life", () => lives().length === 1)
    warden.child.kill("SIGKILL")
    await warden.until("the client's end", () => !isAlive(lives()[0] as number))
    expect(lives()).toHaveLength(1)
  })
})

describe("a client that asks for more than it may", () => {
  it("is refused each time, and gets nothing started", async () => {
    const warden = start("hostile")
    expect(await warden.ended()).toBe(0)
    const answers = warden.said.out
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line))
      .filter(({ type }) => type !== "welcome")
      .sort((one, other) => one.run - other.run)
    expect(answers.map(({ reason, type }) => `${type} ${reason}`)).toEqual([
      "refused grant_refused",
      "refused grant_refused",
      "refused grant_refused",
      "refused bad_request",
      "refused bad_request",
      "refused bad_request"
    ])
    expect(answers.map(({ detail }) => detail).join("\n")).toMatch(/does not list it[\s\S]*none of that name/)
  })
})

describeWith(["root"], "a warden that is root", () => {
  it("starts no job for a client that is root still", async () => {
    const warden = start("root")
    expect(await warden.ended()).toBe(0)
    expect(warden.said.out).toMatch(/still has root's rights/)
  })
})

/** A Unix datagram socket that writes down what comes, as systemd's is. */
const listener = `
import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print("listening", flush=True)
while True:
    print(s.recv(4096).decode().replace("\\n", " "), flush=True)
`

describeWith(["python3", "systemd-notify"], "word to systemd", () => {
  const listen = async () => {
    const socket = join(folder, "notify")
    const child = spawn("python3", ["-c", listener, socket], { stdio: ["ignore", "pipe", "inherit"] })
    children.push(child)
    let heard = ""
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      heard += text
    })
    await waitUntil("the socket", () => heard.includes("listening"), patienceMs)
    return {
      socket,
      words: () =>
        heard
          .split("\n")
          .flatMap((line) => line.split(" "))
          .filter((word) => word.includes("=") && word !== "BARRIER=1")
    }
  }

  it("goes through a real datagram socket: ready, each fresh sign of life, stopping", async () => {
    const systemd = await listen()
    const warden = start("notify", { NOTIFY_SOCKET: systemd.socket })
    await warden.until(
      "three signs of life",
      () => systemd.words().filter((word) => word === "WATCHDOG=1").length >= 3
    )
    warden.child.kill("SIGTERM")
    await waitUntil("the last word", () => systemd.words().includes("STOPPING=1"), patienceMs)
    expect(systemd.words()[0]).toBe("READY=1")
    await warden.ended()
  })

  it("says nothing of a client whose event loop turns but whose loops are silent", async () => {
    const systemd = await listen()
    const warden = start("silent", { NOTIFY_SOCKET: systemd.socket })
    await warden.until("the first word", () => systemd.words().includes("READY=1"))
    // A stop is told behind all that was said before, so what is missing then was never said.
    warden.child.kill("SIGTERM")
    await waitUntil("the last word", () => systemd.words().includes("STOPPING=1"), patienceMs)
    expect(systemd.words()).toEqual(["READY=1", "STOPPING=1"])
    await warden.ended()
  })
})

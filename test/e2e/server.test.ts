/** The server program as it is shipped: a process with its threads and its port. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, describe, expect, it } from "vitest"
import { Program, runToEnd, waitUntil } from "../support/Program.ts"

const entry = join(import.meta.dirname, "../../dist/server.js")
const environment = { PATH: process.env["PATH"] ?? "", LANG: "C.UTF-8" }

const folders: Array<string> = []
const programs: Array<Program> = []

afterEach(async () => {
  for (const program of programs.splice(0)) if (program.isRunning()) await program.crash()
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true })
})

const makeServer = (port = 0) => {
  const folder = mkdtempSync(join(tmpdir(), "postern-server-"))
  folders.push(folder)
  const state = join(folder, "state")
  const command = [process.execPath, entry, "--state", state]
  const program = new Program(
    "server",
    [...command, "--port", String(port)],
    environment,
    join(folder, "log")
  )
  programs.push(program)
  const run = (...args: ReadonlyArray<string>) =>
    runToEnd([...command, ...args], { cwd: folder, environment })
  return { folder, state, program, run }
}

const originOf = (program: Program, from = 0): Promise<string> =>
  waitUntil(
    "the server's address",
    () => /listens on (http:\/\/[^\s"]+)/.exec(program.log().slice(from))?.[1],
    30_000,
    () => program.log()
  )

const status = (origin: string, token: string) =>
  fetch(`${origin}/api/management/v1/status`, { headers: { authorization: `Bearer ${token}` } })

describe("the server program", () => {
  it("starts on an empty folder, takes tokens while it runs, and keeps no token anywhere", async () => {
    const { program, run, state } = makeServer()
    program.start()
    const origin = await originOf(program)
    await waitUntil(
      "advice for a server without a root",
      () => program.log().includes("postern keys init --server"),
      30_000,
      () => program.log()
    )
    const made = await run("token", "create", "alice", "--role", "admin")
    const token = made.stdout.trim()
    expect(made).toMatchObject({ code: 0, stderr: "" })
    expect((await status(origin, token)).status).toBe(200)
    expect((await status(origin, token.replace(/.{4}$/, "bbbb"))).status).toBe(401)
    expect((await run("token", "create", "alice", "--role", "viewer")).code).toBe(1)
    const identity = JSON.parse((await run("identity")).stdout)
    const shown = await (await fetch(`${origin}/api/device/v1/identity`)).json()
    expect({ ...identity, addresses: [] }).toEqual({ ...(shown as object), addresses: [] })

    expect(await program.stop()).toMatchObject({ code: 0 })
    const secret = token.split(".")[1] as string
    const files = readdirSync(state, { recursive: true, encoding: "utf8" }).map((name) => join(state, name))
    const holding = files.filter((path) => statSync(path).isFile() && readFileSync(path).includes(secret))
    expect(holding).toEqual([])
    expect(program.log()).not.toContain(secret)
    expect(statSync(state).mode & 0o777).toBe(0o700)
  })

  it("stops within five seconds with requests held, and a kill keeps what was answered", async () => {
    const { program, run } = makeServer()
    const token = (await run("token", "create", "alice", "--role", "viewer")).stdout.trim()
    program.start()
    const first = await originOf(program)
    expect((await status(first, token)).status).toBe(200)
    const before = program.log().length
    await program.crash()
    program.start()
    const origin = await originOf(program, before)
    expect((await status(origin, token)).status).toBe(200)
    const { code, tookMs } = await program.stop()
    expect(code).toBe(0)
    expect(tookMs).toBeLessThan(5_000)
  })

  it("says why it cannot start: a folder in use, a port in use", async () => {
    const { program, run } = makeServer()
    program.start()
    const origin = await originOf(program)
    const second = await run("--port", "0")
    expect(second.code).toBe(78)
    expect(second.stderr).toContain(`process ${program.pid}`)
    const other = makeServer(Number(new URL(origin).port))
    other.program.start()
    expect(await other.program.ended(30_000)).toBe(1)
    expect(other.program.log()).toMatch(/EADDRINUSE.*--port/)
    expect(other.program.log().trimEnd().split("\n")).toHaveLength(1)
  })
})

/** The control connection: to a tor of script, and to a real one by each way of letting oneself in. */
import { execFileSync, spawn } from "node:child_process"
import { createHmac } from "node:crypto"
import { chmodSync, chownSync, existsSync, mkdirSync, writeFileSync } from "node:fs"
import { createServer, type Socket } from "node:net"
import { join } from "node:path"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Schedule } from "effect"
import { SystemEntropy } from "../../../src/adapters/SystemEntropy.ts"
import { connectControl, type TorEvent, torInfo } from "../../../src/adapters/tor/TorControl.ts"
import { Entropy } from "../../../src/ports/Entropy.ts"
import type { TorEndpoint } from "../../../src/schemas/TorSettings.ts"
import { waitUntil } from "../../support/Program.ts"
import { describeWith } from "../../support/requires.ts"
import { folderOf } from "./support.ts"

/** A tor that answers each command as the script says; undefined is silence. */
const scripted = Effect.fnUntraced(function* (
  answer: (command: string, socket: Socket) => string | undefined,
  where: "socket" | "port" = "socket"
) {
  const path = join(yield* folderOf("control"), "ctl")
  const commands: Array<string> = []
  const sockets: Array<Socket> = []
  const server = createServer((socket) => {
    sockets.push(socket)
    let rest = ""
    socket.on("error", () => undefined)
    socket.on("data", (data) => {
      const lines = (rest + data).split("\r\n")
      rest = lines.pop() ?? ""
      for (const line of lines) {
        commands.push(line)
        const text = answer(line, socket)
        if (text !== undefined) socket.write(text)
      }
    })
  })
  yield* Effect.acquireRelease(
    Effect.promise(
      () =>
        new Promise<void>((resolve) => {
          if (where === "socket") server.listen(path, resolve)
          else server.listen(0, "127.0.0.1", resolve)
        })
    ),
    () =>
      Effect.promise(async () => {
        for (const socket of sockets) socket.destroy()
        await new Promise((resolve) => server.close(resolve))
      })
  )
  const address = server.address()
  const endpoint =
    typeof address === "object" && address !== null ? { host: "127.0.0.1", port: address.port } : { path }
  return { endpoint, commands, sockets }
})

const protocolInfo = (auth: string): string =>
  `250-PROTOCOLINFO 1\r\n250-AUTH ${auth}\r\n250-VERSION Tor="0.4.9"\r\n250 OK\r\n`

/** Lets everybody in, and hands further commands on. */
const open = (answer: (command: string, socket: Socket) => string | undefined) =>
  scripted((command, socket) => {
    if (command.startsWith("PROTOCOLINFO")) return protocolInfo("METHODS=NULL")
    return command === "AUTHENTICATE" ? "250 OK\r\n" : answer(command, socket)
  })

describe("commands", () => {
  it.live("get the replies that belong to them, however many wait", () =>
    Effect.gen(function* () {
      const { endpoint } = yield* open((command) =>
        command === "BAD" ? "510 Unrecognized\r\n" : `250-${command.toLowerCase()}=1\r\n250 OK\r\n`
      )
      const control = yield* connectControl({ endpoint })
      const names = Array.from({ length: 40 }, (_, index) => `C${index}`)
      const replies = yield* Effect.forEach(names, (name) => control.send(name), { concurrency: "unbounded" })
      expect(replies).toEqual(names.map((name) => [`${name.toLowerCase()}=1`, "OK"]))
      expect(yield* Effect.flip(control.send("BAD"))).toMatchObject({
        code: "refused",
        status: 510,
        reason: "Unrecognized"
      })
    })
  )

  it.live("end at their time limit, and a late reply is nobody else's", () =>
    Effect.gen(function* () {
      let late: (() => void) | undefined
      const { endpoint } = yield* open((command, socket) => {
        if (command !== "SLOW") return "250 quick\r\n"
        late = () => socket.write("250 slow\r\n")
        return undefined
      })
      const control = yield* connectControl({ endpoint })
      const slow = yield* Effect.flip(
        control
          .send("SLOW secret", { timeoutMs: 1 })
          .pipe(Effect.orElseSucceed(() => []))
          .pipe(Effect.andThen(control.send("SLOW", { timeoutMs: 50 })))
      )
      expect(slow).toMatchObject({ code: "timed_out", command: "SLOW" })
      expect(slow.message).not.toContain("secret")
      late?.()
      expect(yield* control.send("QUICK")).toEqual(["quick"])
    })
  )

  it.live("are never more than one line, and never endlessly many", () =>
    Effect.gen(function* () {
      const { commands, endpoint } = yield* open(() => undefined)
      const control = yield* connectControl({ endpoint })
      for (const command of ["A\r\nB", "A\nB", "A\0", "A".repeat(70_000)])
        expect(yield* Effect.flip(control.send(command))).toMatchObject({ code: "unusable" })
      const waiting = yield* Effect.forkChild(
        Effect.forEach(Array.from({ length: 64 }), () => control.send("WAIT"), { concurrency: "unbounded" })
      )
      yield* Effect.promise(() => waitUntil("64 commands", () => commands.length === 66))
      expect(yield* Effect.flip(control.send("MORE"))).toMatchObject({ code: "unusable" })
      yield* Fiber.interrupt(waiting)
    })
  )

  it.live("fail when the connection ends, which is told", () =>
    Effect.gen(function* () {
      const { endpoint, sockets } = yield* open((command) => {
        if (command === "DIE") for (const socket of sockets) socket.destroy()
        return undefined
      })
      const control = yield* connectControl({ endpoint })
      expect(yield* Effect.flip(control.send("DIE"))).toMatchObject({ code: "closed" })
      expect(yield* control.closed).toContain("closed")
      expect(yield* Effect.flip(control.send("LATE"))).toMatchObject({ code: "closed" })
    })
  )

  it.live("fail when what comes is no answer to anything", () =>
    Effect.gen(function* () {
      const { endpoint } = yield* open(() => "250 OK\r\n250 who asked\r\n")
      const control = yield* connectControl({ endpoint })
      yield* control.send("A")
      expect(yield* control.closed).toContain("nobody asked")
    })
  )
})

describe("events", () => {
  it.live("reach those who asked for them, and are asked for no longer than that", () =>
    Effect.gen(function* () {
      const { commands, endpoint, sockets } = yield* open(() => "250 OK\r\n")
      const control = yield* connectControl({ endpoint })
      const heard: Array<TorEvent> = []
      yield* control.subscribe(["HS_DESC"], (event) => heard.push(event))
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* control.subscribe(["CIRC", "HS_DESC"], (event) => heard.push(event))
          for (const socket of sockets)
            socket.write("650 CIRC 1 BUILT\r\n650+HS_DESC A\r\nbelow\r\n.\r\n650 OK\r\n")
          yield* Effect.promise(() => waitUntil("three events", () => heard.length === 3))
        })
      )
      expect(heard.map(({ name, text }) => `${name} ${text}`)).toEqual([
        "CIRC 1 BUILT",
        "HS_DESC A",
        "HS_DESC A"
      ])
      expect(heard[1]?.lines).toEqual(["below", "OK"])
      yield* Effect.promise(() => waitUntil("the last word", () => commands.at(-1) === "SETEVENTS HS_DESC"))
      expect(commands).toContain("SETEVENTS HS_DESC CIRC")
    })
  )
})

describe("letting oneself in", () => {
  const tried = (endpoint: TorEndpoint, password?: string) =>
    Effect.gen(function* () {
      const options = { endpoint, entropy: yield* Entropy }
      return yield* Effect.flip(connectControl(password === undefined ? options : { ...options, password }))
    }).pipe(Effect.scoped, Effect.provide(SystemEntropy))

  it.live("is not tried with a file that is no cookie, nor with one who does not know it", () =>
    Effect.gen(function* () {
      const folder = yield* folderOf("cookie")
      const secret = join(folder, "secret")
      const cookie = join(folder, "cookie")
      writeFileSync(secret, "a key of somebody's")
      writeFileSync(cookie, Buffer.alloc(32, 7))
      const thief = yield* scripted(() => protocolInfo(`METHODS=COOKIE,SAFECOOKIE COOKIEFILE="${secret}"`))
      expect((yield* tried(thief.endpoint)).reason).toContain("no cookie")
      const wrong = createHmac("sha256", "x").digest("hex")
      const other = yield* scripted((command) =>
        command.startsWith("PROTOCOLINFO")
          ? protocolInfo(`METHODS=COOKIE,SAFECOOKIE COOKIEFILE="${cookie}"`)
          : `250 AUTHCHALLENGE SERVERHASH=${wrong} SERVERNONCE=${wrong}\r\n`
      )
      expect((yield* tried(other.endpoint)).reason).toContain("not that tor")
      for (const { commands } of [thief, other])
        expect(commands.filter((command) => command.startsWith("AUTHENTICATE"))).toEqual([])
    })
  )

  const password = 'a "password"'

  it.live("to a port is not tried where everybody is let in: anybody may listen there", () =>
    Effect.gen(function* () {
      const thief = yield* scripted(
        (command) => (command.startsWith("PROTOCOLINFO") ? protocolInfo("METHODS=NULL") : "250 OK\r\n"),
        "port"
      )
      const error = yield* tried(thief.endpoint, password)
      expect(error).toMatchObject({
        code: "not_authenticated",
        reason: /CookieAuthentication 1.*Unix socket/
      })
      expect(thief.commands).toEqual(["PROTOCOLINFO 1"])
    })
  )

  it.live("is tried by the cookie first, and by the password only where no cookie can be read", () =>
    Effect.gen(function* () {
      const cookie = join(yield* folderOf("cookie"), "cookie")
      const both = yield* scripted(
        (command) =>
          command.startsWith("PROTOCOLINFO")
            ? protocolInfo(`METHODS=COOKIE,SAFECOOKIE,HASHEDPASSWORD COOKIEFILE="${cookie}"`)
            : "515 no\r\n",
        "port"
      )
      yield* tried(both.endpoint, password)
      expect(both.commands[1]).toBe(`AUTHENTICATE "${password.replaceAll('"', '\\"')}"`)
      writeFileSync(cookie, Buffer.alloc(32, 7), { mode: 0o600 })
      both.commands.length = 0
      yield* tried(both.endpoint, password)
      expect(both.commands.map((command) => command.split(" ")[0])).toEqual(["PROTOCOLINFO", "AUTHCHALLENGE"])
    })
  )

  it.live("to a port is not tried with a cookie that anybody could have laid there", () =>
    Effect.gen(function* () {
      const cookie = join(yield* folderOf("cookie"), "cookie")
      writeFileSync(cookie, Buffer.alloc(32, 7))
      const script = () => protocolInfo(`METHODS=COOKIE,SAFECOOKIE COOKIEFILE="${cookie}"`)
      const thief = yield* scripted(script, "port")
      chmodSync(cookie, 0o644)
      expect((yield* tried(thief.endpoint)).reason).toContain("open to other users")
      if (process.getuid?.() === 0) {
        chmodSync(cookie, 0o600)
        chownSync(cookie, 1_000, 1_000)
        expect((yield* tried(thief.endpoint)).reason).toContain("belongs to uid 1000")
      }
      expect(new Set(thief.commands)).toEqual(new Set(["PROTOCOLINFO 1"]))
    })
  )

  it.live("says that nobody listens, or that nobody answers", () =>
    Effect.gen(function* () {
      expect(yield* tried({ path: "/nowhere/control" })).toMatchObject({ code: "unreachable" })
      const mute = yield* scripted(() => undefined)
      const error = yield* Effect.flip(connectControl({ endpoint: mute.endpoint, connectTimeoutMs: 50 }))
      expect(error).toMatchObject({ code: "timed_out" })
    })
  )
})

describeWith(["tor"], "a real tor", () => {
  const password = 'a "pass\\word" #1'
  const ways = [
    ["its socket's mode", [], {}],
    ["its cookie", ["--CookieAuthentication", "1"], {}],
    ["its password", ["--HashedControlPassword", "HASH"], { password }]
  ] as const
  it.live.each(ways)("lets us in by %s", ([, flags, given]) =>
    Effect.gen(function* () {
      const folder = join(yield* folderOf("tor"), "x")
      mkdirSync(folder, { mode: 0o700 })
      writeFileSync(join(folder, "empty"), "")
      const path = join(folder, "ctl")
      const hash = execFileSync("tor", ["--quiet", "--hash-password", password], { encoding: "utf8" }).trim()
      const base = ["--defaults-torrc", join(folder, "empty"), "-f", join(folder, "empty"), "--quiet"]
      const own = [
        "--DisableNetwork",
        "1",
        "--SocksPort",
        "0",
        "--DataDirectory",
        folder,
        "--ControlSocket",
        path
      ]
      const child = yield* Effect.acquireRelease(
        Effect.sync(() =>
          spawn("tor", [...base, ...own, ...flags.map((flag) => (flag === "HASH" ? hash : flag))], {
            stdio: "ignore"
          })
        ),
        (started) =>
          Effect.promise(async () => {
            const gone = new Promise((resolve) => started.once("exit", resolve))
            if (started.exitCode !== null || started.signalCode !== null || !started.kill("SIGKILL")) return
            await gone
          })
      )
      yield* Effect.promise(() => waitUntil("tor's socket", () => existsSync(path)))
      // tor names its socket a moment before it listens there.
      const control = yield* Effect.retry(
        connectControl({ endpoint: { path }, entropy: yield* Entropy, ...given }),
        { while: ({ code }) => code === "unreachable", schedule: Schedule.spaced(50), times: 100 }
      )
      expect(yield* torInfo(control, "version")).toMatch(/^0\.4\./)
      expect((yield* torInfo(control, "config-text")).split("\n")).toContain("DisableNetwork 1")
      if (flags[0] === "--HashedControlPassword") {
        const wrong = yield* Effect.flip(connectControl({ endpoint: { path }, password: "wrong" }))
        expect(wrong).toMatchObject({ code: "not_authenticated" })
        expect(yield* Effect.flip(connectControl({ endpoint: { path } }))).toMatchObject({
          code: "not_authenticated"
        })
      }
      yield* control.send("SIGNAL HALT")
      expect(yield* control.closed).toContain("closed")
      expect(child.pid).toBeGreaterThan(0)
    }).pipe(Effect.provide(SystemEntropy))
  )
})

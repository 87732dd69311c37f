/** A tor of our own, without a network: started, killed, hung, left behind; and one that runs already. */
import { spawn } from "node:child_process"
import { chmodSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { expect, it } from "@effect/vitest"
import { Effect, Exit, Logger, Redacted, Scope } from "effect"
import { SystemEntropy } from "../../../src/adapters/SystemEntropy.ts"
import { openTor, type TorNodeOptions } from "../../../src/adapters/tor/TorNode.ts"
import { torPaths } from "../../../src/adapters/tor/Torrc.ts"
import { Entropy } from "../../../src/ports/Entropy.ts"
import { waitUntil } from "../../support/Program.ts"
import { describeWith } from "../../support/requires.ts"
import { folderOf, isAlive, settingsOf } from "./support.ts"

const open = (folder: string, given: Partial<TorNodeOptions> = {}) =>
  openTor({ folder, settings: settingsOf(), proxy: null, socks: true, lines: [], ...given })

/** A network whose only authority is nowhere: SOCKS ports are open, and nobody is spoken to. */
const nobodysNetwork = [
  "TestingTorNetwork 1",
  `DirAuthority nobody orport=1 no-v2 v3ident=${"0".repeat(40)} 127.0.0.1:1 ${"0".repeat(40)}`,
  "UseDefaultFallbackDirs 0"
]

const pidOf = ({ pid }: { readonly pid: number | null }): number => {
  if (pid === null) throw new Error("a tor of one's own has a process")
  return pid
}

describeWith(["tor"], "a tor of our own", () => {
  it.live("has a private folder, sockets that only we can use, and ends with its scope", () =>
    Effect.gen(function* () {
      const folder = join(yield* folderOf("tor"), "tor")
      const scope = yield* Scope.make()
      const node = yield* Scope.provide(open(folder), scope)
      const { control, socks, torrc } = torPaths(folder)
      expect(statSync(folder).mode & 0o777).toBe(0o700)
      for (const path of [control, torrc]) expect(statSync(path).mode & 0o077).toBe(0)
      expect(node.socks).toEqual({ path: socks })
      expect(node.version).toMatch(/^0\.4\./)
      expect((yield* node.bootstrap).progress).toBe(0)
      yield* Scope.close(scope, Exit.void)
      expect(isAlive(pidOf(node))).toBe(false)
    })
  )

  it.live("starts where its process id cannot be noted", () =>
    Effect.gen(function* () {
      const folder = join(yield* folderOf("tor"), "tor")
      const { pid } = torPaths(folder)
      mkdirSync(pid, { recursive: true, mode: 0o700 })
      expect(isAlive(pidOf(yield* open(folder)))).toBe(true)
    }).pipe(Effect.scoped)
  )

  it.live("tells when it is killed, and another stands on the same folder at once", () =>
    Effect.gen(function* () {
      const folder = join(yield* folderOf("tor"), "tor")
      const first = yield* open(folder)
      process.kill(pidOf(first), "SIGKILL")
      expect(yield* first.ended).toContain("SIGKILL")
      const second = yield* open(folder)
      expect(isAlive(pidOf(second))).toBe(true)
    }).pipe(Effect.scoped)
  )

  it.live("is found out when it hangs, and killed", () =>
    Effect.gen(function* () {
      const folder = join(yield* folderOf("tor"), "tor")
      const node = yield* open(folder, { watchMs: 100 })
      process.kill(pidOf(node), "SIGSTOP")
      expect(yield* node.ended).toMatch(/hangs|SIGKILL/)
      yield* Effect.promise(() => waitUntil("its end", () => !isAlive(pidOf(node))))
    }).pipe(Effect.scoped)
  )

  it.live(
    "that an earlier program left, stopped so that it could not see its owner die, is ended first",
    () =>
      Effect.gen(function* () {
        const folder = join(yield* folderOf("tor"), "tor")
        const leftover = yield* open(folder)
        process.kill(pidOf(leftover), "SIGSTOP")
        const node = yield* open(folder)
        expect(isAlive(pidOf(node))).toBe(true)
        yield* Effect.promise(() => waitUntil("the other's end", () => !isAlive(pidOf(leftover))))
      }).pipe(Effect.scoped)
  )

  it.live("spares a process that has only the number of an earlier tor", () =>
    Effect.gen(function* () {
      const folder = join(yield* folderOf("tor"), "tor")
      const stranger = yield* Effect.acquireRelease(
        Effect.sync(() => spawn("sleep", ["60"], { stdio: "ignore", detached: true })),
        (child) => Effect.sync(() => child.kill("SIGKILL"))
      )
      mkdirSync(folder, { mode: 0o700 })
      writeFileSync(torPaths(folder).pid, `${stranger.pid}\n`)
      yield* open(folder)
      expect(isAlive(stranger.pid as number)).toBe(true)
    }).pipe(Effect.scoped)
  )

  it.live("ends by itself when its program is killed", () =>
    Effect.gen(function* () {
      const folder = join(yield* folderOf("tor"), "tor")
      const program = join(import.meta.dirname, "ownTor.ts")
      const owner = yield* Effect.acquireRelease(
        Effect.sync(() => spawn(process.execPath, [program, folder], { stdio: "ignore" })),
        (child) => Effect.sync(() => child.kill("SIGKILL"))
      )
      const ready = join(folder, "ready")
      yield* Effect.promise(() => waitUntil("the program's tor", () => existsSync(ready)))
      const pid = Number(readFileSync(ready, "utf8"))
      expect(isAlive(pid)).toBe(true)
      owner.kill("SIGKILL")
      yield* Effect.promise(() => waitUntil("tor's end", () => !isAlive(pid)))
    }).pipe(Effect.scoped)
  )

  it.live("says in tor's own words what is wrong with its configuration", () =>
    Effect.gen(function* () {
      const folder = join(yield* folderOf("tor"), "tor")
      const settings = settingsOf({ options: ["DisableNetwork 1", "NoSuchOption 1"] })
      expect(yield* Effect.flip(open(folder, { settings }))).toMatchObject({
        code: "misconfigured",
        reason: /Unknown option 'NoSuchOption'/
      })
      const proxy = Redacted.make("http://no-such-host.invalid:3128")
      const unresolved = yield* Effect.flip(open(folder, { proxy }))
      expect(unresolved).toMatchObject({
        code: "misconfigured",
        reason: /HTTPSProxy failed to parse or resolve/
      })
    }).pipe(Effect.scoped)
  )

  it.live("says that it is missing, that its folder is open to others, that its path is too long", () =>
    Effect.gen(function* () {
      const folder = join(yield* folderOf("tor"), "tor")
      expect(
        yield* Effect.flip(open(folder, { settings: settingsOf({ command: "no-such-tor" }) }))
      ).toMatchObject({
        code: "missing",
        mend: /apt-get install tor/
      })
      mkdirSync(folder, { recursive: true })
      chmodSync(folder, 0o755)
      expect(yield* Effect.flip(open(folder))).toMatchObject({
        code: "failed",
        reason: /open to other users/
      })
      expect(yield* Effect.flip(open(`${folder}${"x".repeat(100)}`))).toMatchObject({
        code: "failed",
        mend: "use a shorter state folder"
      })
    }).pipe(Effect.scoped)
  )
})

describeWith(["tor"], "a tor that runs already", () => {
  it.live("is used by control and SOCKS port, watched, and left as it was", () =>
    Effect.gen(function* () {
      const folder = join(yield* folderOf("tor"), "tor")
      const other = yield* open(folder, { settings: settingsOf({ options: nobodysNetwork }) })
      const { control, socks } = torPaths(folder)
      const scope = yield* Scope.make()
      const attached = yield* Scope.provide(
        open("/nowhere", {
          settings: settingsOf({ control: `unix:${control}` }),
          entropy: yield* Entropy,
          watchMs: 50
        }),
        scope
      )
      // Without a key for it, the SOCKS port is the one that the running tor says it has.
      expect(attached).toMatchObject({ socks: { path: socks }, pid: null })
      yield* Scope.close(scope, Exit.void)
      expect(isAlive(pidOf(other))).toBe(true)

      const bySocks = yield* open("/nowhere", {
        settings: settingsOf({ socks: `unix:${socks}` }),
        watchMs: 50
      })
      expect(bySocks).toMatchObject({ control: null, socks: { path: socks } })
      expect((yield* bySocks.bootstrap).progress).toBe(100)
      const again = yield* open("/nowhere", {
        settings: settingsOf({ control: `unix:${control}` }),
        watchMs: 50
      })
      process.kill(pidOf(other), "SIGKILL")
      expect(yield* bySocks.ended).toContain("gone")
      expect(yield* again.ended).toContain("closed")
    }).pipe(Effect.scoped, Effect.provide(SystemEntropy))
  )

  it.live("is said to tell too little where its SOCKS port has no extended errors", () =>
    Effect.gen(function* () {
      const folder = join(yield* folderOf("tor"), "tor")
      const plain = join(folder, "plain")
      const settings = settingsOf({ options: nobodysNetwork })
      yield* open(folder, { settings, lines: [`SocksPort unix:${plain}`] })
      const control = `unix:${torPaths(folder).control}`
      const said: Array<unknown> = []
      const logger = Logger.make(({ message }) => void said.push(message))
      const warnings = (given: Parameters<typeof settingsOf>[0]) =>
        Effect.gen(function* () {
          said.length = 0
          yield* open("/nowhere", { settings: settingsOf({ control, ...given }) })
          return said.filter((text) => String(text).includes("ExtendedErrors"))
        }).pipe(Effect.scoped, Effect.provide(Logger.layer([logger])))
      expect(yield* warnings({ socks: `unix:${plain}` })).toHaveLength(1)
      expect(yield* warnings({ socks: `unix:${torPaths(folder).socks}` })).toEqual([])
      expect(yield* warnings({})).toEqual([])
    }).pipe(Effect.scoped)
  )

  it.live("is said not to be there where it is not", () =>
    Effect.gen(function* () {
      for (const given of [{ control: "unix:/nowhere/control" }, { socks: "127.0.0.1:1" }])
        expect(yield* Effect.flip(open("/nowhere", { settings: settingsOf(given) }))).toMatchObject({
          code: "unreachable"
        })
      expect(existsSync("/nowhere")).toBe(false)
    }).pipe(Effect.scoped)
  )
})

describeWith(["tor"], "the log", () => {
  it.live("of tor holds no line twice, and the torrc no more than it must", () =>
    Effect.gen(function* () {
      const folder = join(yield* folderOf("tor"), "tor")
      yield* open(folder)
      const lines = readFileSync(torPaths(folder).torrc, "utf8").trim().split("\n")
      expect(new Set(lines).size).toBe(lines.length)
      expect(lines.map((line) => line.split(" ")[0]).sort()).toEqual([
        "ClientOnly",
        "ControlPort",
        "DataDirectory",
        "DisableNetwork",
        "Log",
        "NoExec",
        "SocksPort"
      ])
    }).pipe(Effect.scoped)
  )
})

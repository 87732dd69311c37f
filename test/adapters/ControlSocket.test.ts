import { spawn } from "node:child_process"
import { chmodSync, existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from "node:fs"
import { connect, createServer } from "node:net"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { askControl, controlSocketPath, serveControl } from "../../src/adapters/ControlSocket.ts"
import { lockState } from "../../src/adapters/StateLock.ts"
import { temporaryFolder } from "./support/folders.ts"

const handlers = {
  inspect: Effect.succeed({ id: "client", children: [] }),
  broken: Effect.die("no"),
  hung: Effect.never,
  large: Effect.sync(() => "x".repeat(9 * 1024 * 1024))
}

const codeOf = (stateFolder: string, request: string, timeoutMs = 5_000) =>
  Effect.map(Effect.flip(askControl({ stateFolder, request, timeoutMs })), (error) => error.code)

/** Sends raw bytes and gives all that comes back until the other side closes. */
const raw = (stateFolder: string, bytes: string) =>
  Effect.callback<string>((resume) => {
    const socket = connect(controlSocketPath(stateFolder))
    let heard = ""
    socket.on("data", (data) => (heard += data.toString()))
    socket.on("error", () => undefined)
    socket.on("close", () => resume(Effect.succeed(heard)))
    socket.write(bytes, () => socket.end())
  })

describe("the control socket", () => {
  it.live("answers requests on its own machine's user alone", () =>
    Effect.gen(function* () {
      const stateFolder = yield* temporaryFolder
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* serveControl({ stateFolder, handlers })
          assert.strictEqual(statSync(controlSocketPath(stateFolder)).mode & 0o777, 0o600)
          assert.deepStrictEqual(yield* askControl({ stateFolder, request: "inspect" }), {
            id: "client",
            children: []
          })
          assert.strictEqual(yield* codeOf(stateFolder, "reboot"), "refused")
          assert.strictEqual(yield* codeOf(stateFolder, "constructor"), "refused")
          assert.strictEqual(yield* codeOf(stateFolder, "broken"), "refused")
          assert.strictEqual(yield* codeOf(stateFolder, "large"), "refused")
          assert.strictEqual(yield* codeOf(stateFolder, "hung", 50), "timed_out")
        })
      )
      assert.deepStrictEqual(readdirSync(stateFolder), [])
      assert.strictEqual(yield* codeOf(stateFolder, "inspect"), "not_running")
    })
  )

  it.live("takes several lines, and refuses garbage and endless ones", () =>
    Effect.gen(function* () {
      const stateFolder = yield* temporaryFolder
      yield* serveControl({ stateFolder, handlers })
      const heard = yield* raw(stateFolder, `{"request":"inspect"}\nhello\n{"request":1}\n`)
      const answers = heard
        .trimEnd()
        .split("\n")
        .map((line) => (JSON.parse(line) as { ok: boolean }).ok)
      assert.deepStrictEqual(answers, [true, false, false])
      assert.strictEqual(yield* raw(stateFolder, "x".repeat(100_000)), "")
      assert.deepStrictEqual(yield* askControl({ stateFolder, request: "inspect" }), {
        id: "client",
        children: []
      })
    })
  )

  it.live("replaces the socket of a program that crashed, but never one in use or another file", () =>
    Effect.gen(function* () {
      const stateFolder = yield* temporaryFolder
      const path = controlSocketPath(stateFolder)
      const script = `require("net").createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, "SIGKILL"))`
      yield* Effect.callback<void>(
        (resume) => void spawn(process.execPath, ["-e", script]).on("close", () => resume(Effect.void))
      )
      assert.isTrue(existsSync(path))
      yield* serveControl({ stateFolder, handlers })
      const second = yield* Effect.flip(Effect.scoped(serveControl({ stateFolder, handlers })))
      assert.strictEqual(second.code, "in_use")
      assert.deepStrictEqual(yield* askControl({ stateFolder, request: "inspect" }), {
        id: "client",
        children: []
      })
      const other = yield* temporaryFolder
      writeFileSync(controlSocketPath(other), "precious")
      assert.strictEqual((yield* Effect.flip(serveControl({ stateFolder: other, handlers }))).code, "failed")
      assert.isTrue(existsSync(controlSocketPath(other)))
      const deep = join(yield* temporaryFolder, "d".repeat(120))
      assert.match(
        (yield* Effect.flip(serveControl({ stateFolder: deep, handlers }))).reason,
        /shorter state folder/
      )
    })
  )

  it.live("does not believe what speaks otherwise", () =>
    Effect.gen(function* () {
      const stateFolder = yield* temporaryFolder
      const server = createServer((socket) =>
        socket
          .on("error", () => undefined)
          .resume()
          .end("220 smtp\n")
      )
      yield* Effect.acquireRelease(
        Effect.callback<void>(
          (resume) => void server.listen(controlSocketPath(stateFolder), () => resume(Effect.void))
        ),
        () => Effect.callback<void>((resume) => void server.close(() => resume(Effect.void)))
      )
      assert.strictEqual(yield* codeOf(stateFolder, "inspect"), "malformed")
    })
  )
})

describe("the lock of a state folder", () => {
  it.live("lets one in at a time, and tells the other who is there", () =>
    Effect.gen(function* () {
      const stateFolder = join(yield* temporaryFolder, "state")
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* lockState(stateFolder)
          const error = yield* Effect.flip(Effect.scoped(lockState(stateFolder)))
          assert.match(error.message, new RegExp(`process ${process.pid}\\) is running on it`))
        })
      )
      yield* Effect.scoped(lockState(stateFolder))
    })
  )

  it.live("is given back when its holder is killed", () =>
    Effect.gen(function* () {
      const stateFolder = join(yield* temporaryFolder, "state")
      const module = join(import.meta.dirname, "../../src/adapters/StateLock.ts")
      const script = `
        import { Effect } from "effect"
        import { lockState } from ${JSON.stringify(module)}
        setInterval(() => {}, 60_000)
        await Effect.runPromise(Effect.scoped(Effect.andThen(lockState(${JSON.stringify(stateFolder)}), Effect.sync(() => console.log("held")).pipe(Effect.andThen(Effect.never)))))`
      const holder = spawn(process.execPath, ["--input-type=module", "-e", script], {
        stdio: ["ignore", "pipe", "inherit"],
        cwd: join(import.meta.dirname, "../..")
      })
      yield* Effect.addFinalizer(() => Effect.sync(() => void holder.kill("SIGKILL")))
      yield* Effect.callback<void>((resume) => void holder.stdout.once("data", () => resume(Effect.void)))
      const error = yield* Effect.flip(Effect.scoped(lockState(stateFolder)))
      assert.match(error.message, new RegExp(`process ${holder.pid}`))
      yield* Effect.callback<void>((resume) => {
        holder.once("close", () => resume(Effect.void))
        holder.kill("SIGKILL")
      })
      yield* Effect.scoped(lockState(stateFolder))
    })
  )

  it.live("is refused in a folder that others can enter", () =>
    Effect.gen(function* () {
      const stateFolder = join(yield* temporaryFolder, "state")
      mkdirSync(stateFolder)
      chmodSync(stateFolder, 0o755)
      assert.match((yield* Effect.flip(Effect.scoped(lockState(stateFolder)))).message, /open to other users/)
    })
  )
})

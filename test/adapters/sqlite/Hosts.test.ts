import { mkdtempSync, rmSync, statSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { openDatabase, type SqliteError } from "../../../src/adapters/sqlite/Database.ts"
import { hostInProcess, openInProcess } from "../../../src/adapters/sqlite/InProcessDatabase.ts"
import { openInWorker } from "../../../src/adapters/sqlite/WorkerDatabase.ts"
import { counterDatabase } from "../../support/CounterDatabase.ts"

const entry = new URL("../../support/CounterDatabase.ts", import.meta.url)

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "postern-sqlite-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

const codeOf = (error: SqliteError) => error.code

/** Asks until the restarted thread answers again. */
const eventually = <A, E>(call: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.retry(call, { times: 200 })

describe("in-process host", () => {
  it.effect("keeps what succeeded, takes back what threw, and survives its own end on the same object", () =>
    Effect.gen(function* () {
      const database = openDatabase(":memory:")
      const first = yield* hostInProcess(counterDatabase, database)
      assert.strictEqual(yield* first.call("add", "a", 2), 2)
      const error = yield* Effect.flip(first.call("fail", "a"))
      assert.strictEqual(error.code, "failed")
      assert.match(error.message, /as asked/)
      const second = yield* hostInProcess(counterDatabase, database)
      assert.strictEqual(yield* second.call("read", "a"), 2)
      database.close()
    })
  )

  it.effect("refuses a file made by a newer program", () =>
    Effect.gen(function* () {
      const path = join(yield* folder, "counter.db")
      yield* Effect.scoped(openInProcess(counterDatabase, path))
      const older = { ...counterDatabase, migrations: counterDatabase.migrations.slice(0, 1) }
      const error = yield* Effect.flip(openInProcess(older, path))
      assert.strictEqual(error.code, "unusable")
      assert.match(error.message, /install the newer program/)
    })
  )

  it.effect("adds the missing steps to an older file, and keeps the file to its owner", () =>
    Effect.gen(function* () {
      const path = join(yield* folder, "counter.db")
      const older = { ...counterDatabase, migrations: counterDatabase.migrations.slice(0, 1) }
      yield* Effect.scoped(Effect.flatMap(openInProcess(older, path), (host) => host.call("add", "a", 7)))
      const host = yield* openInProcess(counterDatabase, path)
      assert.strictEqual(yield* host.call("read", "a"), 7)
      assert.strictEqual(statSync(path).mode & 0o777, 0o600)
    })
  )
})

describe("worker host", () => {
  it.live(
    "answers after the commit: what was answered is in the file when the thread is killed at once",
    () =>
      Effect.gen(function* () {
        const path = join(yield* folder, "counter.db")
        const host = yield* openInWorker(counterDatabase, { path, entry })
        const answers = yield* Effect.all(
          Array.from({ length: 100 }, (_, index) =>
            Effect.result(host.call(index % 10 === 3 ? "fail" : "add", "a", 1))
          ),
          { concurrency: "unbounded" }
        )
        yield* host.kill
        const succeeded = answers.filter((answer) => answer._tag === "Success").length
        assert.strictEqual(succeeded, 90)
        const database = openDatabase(path)
        const row = database.prepare("SELECT value FROM counter WHERE name = 'a'").get() as { value: number }
        database.close()
        assert.strictEqual(row.value, 90)
      })
  )

  it.live(
    "fails every call in hand when the thread dies, starts it again, and keeps nothing of the lost batch",
    () =>
      Effect.gen(function* () {
        const path = join(yield* folder, "counter.db")
        const troubles: Array<string> = []
        const host = yield* openInWorker(counterDatabase, {
          path,
          entry,
          onTrouble: (reason) => troubles.push(reason)
        })
        yield* host.call("add", "a", 1)
        const fibers = yield* Effect.forEach(["add", "die", "add", "read"] as const, (method) =>
          Effect.forkChild(Effect.flip(host.call(method as "add", "a", 1)), { startImmediately: true })
        )
        const errors = yield* Effect.forEach(fibers, (fiber) => Fiber.join(fiber))
        assert.deepStrictEqual(errors.map(codeOf), ["died", "died", "died", "died"])
        assert.strictEqual(yield* eventually(host.call("read", "a")), 1)
        assert.strictEqual(troubles.length, 1)
      })
  )

  it.live("refuses what is more than its queue holds, and serves the rest", () =>
    Effect.gen(function* () {
      const path = join(yield* folder, "counter.db")
      const host = yield* openInWorker(counterDatabase, { path, entry, maximumQueue: 10, maximumBatch: 4 })
      const holding = yield* Effect.forkChild(host.call("hold", 50), { startImmediately: true })
      const answers = yield* Effect.all(
        Array.from({ length: 30 }, () => Effect.result(host.call("add", "a", 1))),
        { concurrency: "unbounded" }
      )
      yield* Fiber.join(holding)
      const refused = answers.flatMap((answer) => (answer._tag === "Failure" ? [answer.failure.code] : []))
      assert.isAbove(refused.length, 0)
      assert.deepStrictEqual([...new Set(refused)], ["overloaded"])
      assert.strictEqual(yield* host.call("read", "a"), 30 - refused.length)
    })
  )

  it.live("an argument that cannot be cloned fails its own batch and no later call", () =>
    Effect.gen(function* () {
      const host = yield* openInWorker(counterDatabase, { path: join(yield* folder, "counter.db"), entry })
      const error = yield* Effect.flip(host.call("echo", (() => 1) as never))
      assert.strictEqual(error.code, "failed")
      assert.deepStrictEqual(yield* host.call("echo", Uint8Array.of(1, 2)), Uint8Array.of(1, 2))
    })
  )

  it.live("says why a file cannot be opened, and a closed host says that it is closed", () =>
    Effect.gen(function* () {
      const home = yield* folder
      const error = yield* Effect.flip(
        openInWorker(counterDatabase, { path: join(home, "none", "counter.db"), entry })
      )
      assert.strictEqual(error.code, "unusable")
      const closed = yield* Effect.scoped(
        openInWorker(counterDatabase, { path: join(home, "counter.db"), entry })
      )
      assert.strictEqual((yield* Effect.flip(closed.call("read", "a"))).code, "closed")
    })
  )
})

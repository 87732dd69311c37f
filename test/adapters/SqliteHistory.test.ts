/** The history on a real disk: bounded, whole after a kill, set aside when damaged, and no burden when it cannot be had. */
import { spawn } from "node:child_process"
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import fc from "fast-check"
import { historyPath, SqliteHistory } from "../../src/adapters/SqliteHistory.ts"
import { migrate, openDatabase } from "../../src/adapters/sqlite/Database.ts"
import { historyDatabase, sampleSteps } from "../../src/adapters/sqlite/history/HistoryDatabase.ts"
import { History, type HistoryBook } from "../../src/ports/History.ts"
import { type HealthSample, sampleOf } from "../../src/schemas/Health.ts"
import { type HistoryEvent, historyKinds } from "../../src/schemas/History.ts"
import { Limits } from "../../src/schemas/Limits.ts"
import { healthReport } from "../support/health.ts"
import { waitUntil } from "../support/Program.ts"
import { temporaryFolder } from "./support/folders.ts"
import { hasSmallDisk, smallDisk } from "./support/smallDisk.ts"

const event = (n: number, changes: Partial<HistoryEvent> = {}): HistoryEvent => ({
  at_ms: n,
  kind: "order",
  subject: `order-${n}`,
  detail: "",
  ...changes
})
const sample = (at_ms: number): HealthSample => sampleOf(healthReport({ at_ms }))

const withBook = <A, E>(stateFolder: string, use: (book: HistoryBook) => Effect.Effect<A, E>) =>
  Effect.scoped(Effect.flatMap(History, ({ open }) => Effect.flatMap(open, use))).pipe(
    Effect.provide(SqliteHistory({ stateFolder }))
  )

/** All files of the database together. */
const bytesOf = (folder: string): number =>
  ["", "-wal", "-shm"]
    .map((suffix) => `${historyPath(folder)}${suffix}`)
    .reduce((sum, path) => sum + (existsSync(path) ? statSync(path).size : 0), 0)

const day = 86_400_000

describe("the history on disk", () => {
  it.live("keeps the newest of each kind of event, and is bounded in bytes", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      yield* withBook(folder, (book) =>
        Effect.gen(function* () {
          const detail = "x".repeat(200)
          yield* book.add([event(0, { kind: "boot" })], [])
          for (let round = 0; round < 30; round++) {
            const events = historyKinds
              .filter((kind) => kind !== "boot")
              .flatMap((kind) =>
                Array.from({ length: 50 }, (_, n) =>
                  event(round * 50 + n, { kind, detail, subject: detail.slice(80) })
                )
              )
            yield* book.add(events, [])
          }
          const all = yield* book.events(100_000)
          for (const kind of historyKinds.filter((one) => one !== "boot"))
            assert.strictEqual(all.filter((one) => one.kind === kind).length, Limits.historyEventsOfKind)
          // What happens often does not push out what happens seldom.
          assert.strictEqual(all.at(-1)?.kind, "boot")
          assert.strictEqual((yield* book.events(1))[0]?.at_ms, 1499)
        })
      )
      assert.isBelow(bytesOf(folder), Limits.historyBytes)
    })
  )

  it("thins samples with their age, whatever the times", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 3_000 * day }), { maxLength: 400 }), (times) => {
        const database = openDatabase(":memory:")
        try {
          migrate(database, historyDatabase)
          const book = historyDatabase.build(database)
          for (const at of times) book.add([], [sample(at)])
          const seen = book.samples(10_000).map(({ at_ms }) => at_ms)
          assert.deepStrictEqual(
            seen,
            [...seen].sort((a, b) => b - a)
          )
          assert.isAtMost(
            seen.length,
            sampleSteps.reduce((sum, { keep }) => sum + keep, 0)
          )
          for (const at of seen) assert.include(times, at)
          // The newest step is never thinned away.
          if (times.length > 0) {
            const newest = Math.max(...times)
            assert.isAtMost(newest - (seen[0] as number), 300_000)
          }
        } finally {
          database.close()
        }
      })
    )
  })

  it("keeps five minutes for a day, hours for a month, days for two years", () => {
    const database = openDatabase(":memory:")
    migrate(database, historyDatabase)
    const book = historyDatabase.build(database)
    const until = 800 * day
    // Four times a day at first, then every half hour.
    for (let at = 0; at < 760 * day; at += 6 * 3_600_000) book.add([], [sample(at)])
    for (let at = 760 * day; at < until; at += 1_800_000) book.add([], [sample(at)])
    const seen = book.samples(10_000).map(({ at_ms }) => until - at_ms)
    assert.strictEqual(seen.filter((age) => age <= day).length, 48)
    const month = seen.filter((age) => age > 6 * day && age <= 30 * day)
    assert.isAtLeast(month.length, 23 * 24)
    assert.isAtLeast(seen.filter((age) => age > 31 * day).length, 690)
    assert.isAtMost(seen.length, 288 + 720 + 730)
    database.close()
  })

  it.live("is set aside where it is damaged, and begun anew", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      yield* withBook(folder, (book) =>
        book.add(
          Array.from({ length: 300 }, (_, n) => event(n)),
          []
        )
      )
      const path = historyPath(folder)
      const bytes = readFileSync(path)
      bytes.fill(0x5a, 4_096, 4_096 * 3)
      writeFileSync(path, bytes)
      yield* withBook(folder, (book) =>
        Effect.gen(function* () {
          assert.include(book.setAside ?? "", "history.db.damaged")
          assert.deepStrictEqual(yield* book.events(10), [])
          yield* book.add([event(1)], [])
        })
      )
      assert.isTrue(existsSync(`${path}.damaged`))
      writeFileSync(path, "this is no database at all, but a letter of some length\n".repeat(100))
      yield* withBook(folder, (book) => Effect.sync(() => assert.isNotNull(book.setAside)))
      yield* withBook(folder, (book) => Effect.sync(() => assert.isNull(book.setAside)))
    })
  )

  it.live("is no history, and no harm, where its place is taken", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      mkdirSync(historyPath(folder))
      const error = yield* Effect.flip(withBook(folder, () => Effect.void))
      assert.strictEqual(error._tag, "HistoryError")
      assert.isTrue(statSync(historyPath(folder)).isDirectory())
    })
  )

  it.live("is whole after kill -9 in the middle of writing", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const writer = spawn(
        process.execPath,
        [join(import.meta.dirname, "support/historyWriter.ts"), folder],
        {
          stdio: ["ignore", "pipe", "inherit"]
        }
      )
      let written = 0
      let ended = false
      writer.stdout.setEncoding("utf8").on("data", (text: string) => {
        written = Number(text.trim().split("\n").at(-1))
      })
      writer.on("close", () => {
        ended = true
      })
      yield* Effect.promise(() => waitUntil("some commits", () => written >= 200 || ended))
      assert.isFalse(ended)
      writer.kill("SIGKILL")
      yield* Effect.promise(() => waitUntil("its end", () => ended))
      yield* withBook(folder, (book) =>
        Effect.gen(function* () {
          assert.isNull(book.setAside)
          const [newest] = yield* book.events(1)
          // The system has what was committed, though the program is gone.
          assert.isAtLeast(newest?.at_ms ?? 0, written)
        })
      )
    })
  )
})

describe.skipIf(!hasSmallDisk())("the history on a full disk", () => {
  it.live("fails call by call, and goes on once there is room", () =>
    Effect.gen(function* () {
      const folder = yield* smallDisk(yield* temporaryFolder, 2_048)
      yield* withBook(folder, (book) =>
        Effect.gen(function* () {
          yield* book.add([event(1)], [sample(1)])
          const filler = join(folder, "filler")
          const fill = () => {
            try {
              for (;;) writeFileSync(filler, Buffer.alloc(4_096), { flag: "a" })
            } catch (error) {
              assert.strictEqual((error as NodeJS.ErrnoException).code, "ENOSPC")
            }
          }
          fill()
          const many = Array.from({ length: 2_000 }, (_, n) => event(n, { detail: "x".repeat(200) }))
          const error = yield* Effect.flip(book.add(many, []))
          assert.match(error.message, /full/)
          assert.deepStrictEqual(
            (yield* book.events(10)).map(({ at_ms }) => at_ms),
            [1]
          )
          writeFileSync(filler, "")
          yield* book.add([event(2)], [])
          assert.strictEqual((yield* book.events(10)).length, 2)
        })
      )
    })
  )
})

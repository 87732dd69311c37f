import { spawn } from "node:child_process"
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { SqliteLedger } from "../../src/adapters/SqliteLedger.ts"
import { SystemEntropy } from "../../src/adapters/SystemEntropy.ts"
import { openDatabase } from "../../src/adapters/sqlite/Database.ts"
import { Ledger } from "../../src/ports/Ledger.ts"
import { temporaryFolder } from "./support/folders.ts"
import { accept, conclusionAfter, ledgerIn, orderId, reasonOf } from "./support/ledger.ts"
import { hasSmallDisk, smallDisk } from "./support/smallDisk.ts"

/** Runs the writer until it has said so many lines, kills it without warning and gives what it said. */
const writeAndKill = (stateFolder: string, first: number, lines: number) =>
  Effect.callback<ReadonlyArray<string>>((resume) => {
    const script = join(import.meta.dirname, "support/ledgerWriter.ts")
    const child = spawn(process.execPath, [script, stateFolder, String(first)], {
      stdio: ["ignore", "pipe", "inherit"]
    })
    const said: Array<string> = []
    createInterface({ input: child.stdout }).on("line", (line) => {
      if (said.push(line) === lines) child.kill("SIGKILL")
    })
    child.on("close", () => resume(Effect.succeed(said)))
    return Effect.sync(() => void child.kill("SIGKILL"))
  })

describe("the ledger on disk", () => {
  it.effect("holds all it ever said it holds when its program is killed in mid-work", () =>
    Effect.gen(function* () {
      const state = join(yield* temporaryFolder, "state")
      let first = 1
      let incarnation: string | undefined
      for (const lines of [7, 31, 64, 122]) {
        const said = yield* writeAndKill(state, first, lines)
        assert.isAtLeast(said.length, lines)
        yield* Effect.scoped(
          Effect.gen(function* () {
            const ledger = yield* ledgerIn(state)
            incarnation ??= ledger.incarnation
            assert.strictEqual(ledger.incarnation, incarnation)
            for (const line of said) {
              const [what, number] = line.split(" ") as [string, string]
              const row = yield* ledger.find(orderId(Number(number)))
              if (what === "accepted") assert.isNotNull(row)
              else if (what === "begun") assert.strictEqual(row?.attempts, 1)
              else assert.strictEqual(row?.state, "succeeded")
            }
            const last = (yield* ledger.highWater)?.counter ?? 0
            let succeeded = 0
            for (let number = 1; number <= last; number++) {
              const row = yield* ledger.find(orderId(number))
              if (row === null) throw new Error(`order ${number} is lost`)
              if (row.state === "succeeded") succeeded++
            }
            const head = yield* ledger.chainHead
            assert.strictEqual(head.number, succeeded)
            assert.strictEqual((yield* ledger.counts).succeeded, succeeded)
            const receipts = (yield* ledger.outbox(10_000)).flatMap((item) =>
              item.kind === "receipt" ? [item.number] : []
            )
            assert.deepStrictEqual(
              receipts,
              receipts.map((_, index) => head.number - receipts.length + 1 + index)
            )
            // What was cut off in mid-run is found again, once.
            const cutOff = yield* ledger.unfinished()
            assert.isAtMost(cutOff.length, 1)
            for (const row of cutOff) {
              yield* ledger.conclude(
                conclusionAfter(yield* ledger.chainHead, Number(row.order.id.slice(-12)), "succeeded")
              )
            }
            first = last + 1
          })
        )
      }
    })
  )

  it.effect("is private, fully flushed, and keeps its identity", () =>
    Effect.gen(function* () {
      const state = join(yield* temporaryFolder, "state")
      const incarnation = yield* Effect.scoped(Effect.map(ledgerIn(state), (ledger) => ledger.incarnation))
      assert.match(incarnation, /^[a-z2-7]{26}$/)
      assert.strictEqual((yield* ledgerIn(state)).incarnation, incarnation)
      assert.strictEqual(statSync(join(state, "ledger.db")).mode & 0o777, 0o600)
      const database = openDatabase(join(state, "ledger.db"))
      assert.strictEqual(database.prepare("PRAGMA synchronous").get()?.["synchronous"], 2)
      assert.strictEqual(database.prepare("PRAGMA journal_mode").get()?.["journal_mode"], "wal")
      database.close()
      const other = join(yield* temporaryFolder, "other")
      assert.notStrictEqual((yield* ledgerIn(other)).incarnation, incarnation)
    })
  )

  it.effect("says so when its file is damaged, and does not replace it", () =>
    Effect.gen(function* () {
      const state = join(yield* temporaryFolder, "state")
      yield* Effect.scoped(
        Effect.gen(function* () {
          const ledger = yield* ledgerIn(state)
          for (let number = 1; number <= 30; number++) yield* accept(ledger, number)
        })
      )
      const path = join(state, "ledger.db")
      const sound = readFileSync(path)
      const damages: ReadonlyArray<(bytes: Buffer) => void> = [
        (bytes) => bytes.fill(0, 0, 100),
        (bytes) => bytes.fill(0xff, 4096, 8192),
        (bytes) => bytes.fill(0x41, 20_000, 28_000)
      ]
      for (const damage of damages) {
        const bytes = Buffer.from(sound)
        damage(bytes)
        writeFileSync(path, bytes)
        const error = yield* Effect.flip(Effect.scoped(ledgerIn(state)))
        assert.strictEqual(error._tag, "LedgerError")
        assert.match(error.reason, /malformed|damaged|not a database/)
        assert.match(error.reason, /restore it or move it away/)
        assert.isTrue(existsSync(path))
      }
    })
  )

  it.effect("refuses a row that was changed on disk", () =>
    Effect.gen(function* () {
      const state = join(yield* temporaryFolder, "state")
      const ledger = yield* ledgerIn(state)
      yield* accept(ledger, 1)
      const database = openDatabase(join(state, "ledger.db"))
      database.exec(`UPDATE orders SET document = replace(document, '"counter":1', '"counter":-1')`)
      database.close()
      assert.match(yield* reasonOf(ledger.find(orderId(1))), /an order in the ledger is damaged/)
    })
  )

  it.live("serves the same file from a thread of its own", () =>
    Effect.gen(function* () {
      const stateFolder = join(yield* temporaryFolder, "state")
      const entry = new URL("./support/ledgerEntry.ts", import.meta.url)
      yield* Effect.scoped(
        Effect.gen(function* () {
          const layer = SqliteLedger({ stateFolder, entry }).pipe(Layer.provide(SystemEntropy))
          const ledger = yield* Effect.provideContext(Ledger, yield* Layer.build(layer))
          yield* accept(ledger, 1)
          yield* ledger.putOutput(orderId(1), 0, new Uint8Array(1000).subarray(0, 3))
          yield* ledger.conclude(conclusionAfter(yield* ledger.chainHead, 1))
          const kinds = (yield* ledger.outbox(5)).map((item) =>
            item.kind === "output" ? item.bytes.length : item.kind
          )
          assert.deepStrictEqual(kinds, [3, "receipt"])
        })
      )
      const again = yield* ledgerIn(stateFolder)
      assert.strictEqual((yield* again.find(orderId(1)))?.state, "succeeded")
      writeFileSync(join(stateFolder, "ledger.db"), "no database at all".repeat(1000))
      const damaged = Effect.scoped(
        Layer.build(SqliteLedger({ stateFolder, entry }).pipe(Layer.provide(SystemEntropy)))
      )
      assert.match(yield* reasonOf(damaged), /restore it or move it away/)
    })
  )

  it.effect("refuses a folder that others can enter", () =>
    Effect.gen(function* () {
      const state = join(yield* temporaryFolder, "state")
      mkdirSync(state, { mode: 0o755 })
      assert.match(yield* reasonOf(Effect.scoped(ledgerIn(state))), /open to other users/)
    })
  )

  it.effect.skipIf(!hasSmallDisk())(
    "changes nothing when the disk is full, and goes on when there is room again",
    () =>
      Effect.gen(function* () {
        const mount = yield* smallDisk(yield* temporaryFolder, 1_024)
        const ballast = join(mount, "ballast")
        writeFileSync(ballast, new Uint8Array(300_000))
        const ledger = yield* ledgerIn(join(mount, "state"))
        let stored = 0
        let failure: { readonly reason: string } | undefined
        while (failure === undefined) {
          const outcome = yield* Effect.result(ledger.putOutput(orderId(1), stored, new Uint8Array(10_000)))
          if (outcome._tag === "Success") stored++
          else failure = outcome.failure
          assert.isBelow(stored, 1_000)
        }
        assert.match(failure.reason, /disk is full.*Free some room/s)
        assert.strictEqual((yield* ledger.outboxSize).items, stored)
        assert.strictEqual((yield* ledger.chainHead).digest, null)
        rmSync(ballast)
        yield* ledger.acknowledge((yield* ledger.outbox(1_000)).slice(0, stored - 5))
        assert.strictEqual(yield* accept(ledger, 1), "accepted")
        yield* ledger.conclude(conclusionAfter(yield* ledger.chainHead, 1))
        assert.strictEqual((yield* ledger.chainHead).number, 1)
      })
  )
})

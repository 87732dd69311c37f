/** A program that writes events for ever, one commit each, and says how far it is; for being killed. */
import { Effect } from "effect"
import { SqliteHistory } from "../../../src/adapters/SqliteHistory.ts"
import { History } from "../../../src/ports/History.ts"

const write = Effect.gen(function* () {
  const { open } = yield* History
  const book = yield* open
  for (let at_ms = 1; ; at_ms++) {
    yield* book.add([{ at_ms, kind: "order", subject: "x", detail: "y".repeat(100) }], [])
    process.stdout.write(`${at_ms}\n`)
    yield* Effect.sleep(0)
  }
})

Effect.runPromise(
  Effect.provide(Effect.scoped(write), SqliteHistory({ stateFolder: process.argv[2] as string }))
)

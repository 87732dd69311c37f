/**
 * A program that works on a ledger until it is killed. It says on stdout what is durable, one line each, only after the
 * ledger said so. Run as `node ledgerWriter.ts STATE FIRST`.
 */
import { writeSync } from "node:fs"
import { Effect } from "effect"
import { conclusionAfter, envelope, ledgerIn, orderDigest, orderId, orderOf } from "./ledger.ts"

const [stateFolder, first] = process.argv.slice(2)
const say = (line: string) => Effect.sync(() => void writeSync(1, `${line}\n`))

const work = Effect.gen(function* () {
  const ledger = yield* ledgerIn(stateFolder as string)
  for (let number = Number(first); ; number++) {
    yield* ledger.accept(orderOf(number), envelope, orderDigest(number), 1_500)
    yield* say(`accepted ${number}`)
    yield* ledger.advance(orderId(number), "downloading")
    yield* ledger.advance(orderId(number), "verifying")
    yield* ledger.begin(orderId(number), false, 1_600)
    yield* say(`begun ${number}`)
    for (const sequence of [0, 1])
      yield* ledger.putOutput(orderId(number), sequence, new Uint8Array(5_000).fill(number))
    yield* ledger.conclude(conclusionAfter(yield* ledger.chainHead, number))
    yield* say(`concluded ${number}`)
    const sent = yield* ledger.outbox(3)
    yield* ledger.acknowledge(sent)
  }
})

await Effect.runPromise(Effect.scoped(work))

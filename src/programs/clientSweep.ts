/** Before a client's tree is started: what belongs to no order of the ledger is removed from the disk. */
import { Effect } from "effect"
import { Ledger } from "../ports/Ledger.ts"
import { PackageStore } from "../ports/PackageStore.ts"

/** Removes ciphertexts, folders and spooled files that no unfinished order and no waiting result needs. */
export const sweepLeftovers = Effect.gen(function* () {
  const ledger = yield* Ledger
  const store = yield* PackageStore
  const rows = yield* ledger.unfinished()
  yield* store.sweep(
    rows.map((row) => row.order.id),
    yield* ledger.spooled
  )
})

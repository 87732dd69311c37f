import { Effect, Layer } from "effect"
import { SqliteLedgerInProcess, SqliteLedgerOver } from "../../../src/adapters/SqliteLedger.ts"
import { SystemEntropy } from "../../../src/adapters/SystemEntropy.ts"
import { openDatabase } from "../../../src/adapters/sqlite/Database.ts"
import { type Conclusion, Ledger } from "../../../src/ports/Ledger.ts"
import type { DsseEnvelope } from "../../../src/schemas/Dsse.ts"
import { type DeviceId, type Digest, OrderId, Recipient } from "../../../src/schemas/Ids.ts"
import type { FinalState, LaneName, WorkOrder } from "../../../src/schemas/WorkOrder.ts"

export const orderId = (number: number) =>
  OrderId.make(`01890000-0000-7000-8000-${String(number).padStart(12, "0")}`)

/** A digest that is different for each name. */
export const digestFor = (name: string) =>
  `sha256:${Buffer.from(name.padEnd(32, ".").slice(0, 32)).toString("hex")}` as Digest

export const envelope: DsseEnvelope = {
  payloadType: "application/vnd.postern.order+json",
  payload: "e30=",
  signatures: []
}

export const orderOf = (number: number, change: Partial<WorkOrder> = {}): WorkOrder => ({
  type: "postern/order/v1",
  id: orderId(number),
  device: `dev_${"a".repeat(52)}` as DeviceId,
  lane: "job" as LaneName,
  counter: number,
  previous: null,
  root_version: 1,
  issued_at_ms: 1_000,
  expires_at_ms: 2_000,
  deadline_at_ms: 2_000,
  payload: { digest: digestFor("payload"), size_bytes: 1, unpacked_bytes: 1, entries: 1 },
  results_to: [Recipient.make(`age1${"q".repeat(58)}`)],
  ...change
})

export const orderDigest = (number: number) => digestFor(`order ${number}`)

/** How the next order ends, continuing the chain that ends with `number`. */
export const conclusionAfter = (
  head: { readonly number: number; readonly digest: Digest | null },
  order: number | null,
  state: FinalState = "succeeded"
): Conclusion => ({
  order: order === null ? null : orderId(order),
  orderDigest: order === null ? digestFor(`refused ${head.number + 1}`) : orderDigest(order),
  state,
  receipt: envelope,
  number: head.number + 1,
  receiptDigest: digestFor(`receipt ${head.number + 1}`),
  previous: head.digest,
  artifacts: null
})

/** Offers an order to a ledger. */
export const accept = (ledger: Ledger["Service"], number: number, change: Partial<WorkOrder> = {}) =>
  ledger.accept(orderOf(number, change), envelope, orderDigest(number), 1_500)

/** Why it failed. */
export const reasonOf = <A, E extends { readonly reason: string }>(effect: Effect.Effect<A, E>) =>
  Effect.map(Effect.flip(effect), (error) => error.reason)

/** A ledger in memory. */
export const memoryLedger = Effect.gen(function* () {
  const database = yield* Effect.acquireRelease(
    Effect.sync(() => openDatabase(":memory:")),
    (open) => Effect.sync(() => open.close())
  )
  const context = yield* Layer.build(SqliteLedgerOver(database).pipe(Layer.provide(SystemEntropy)))
  return yield* Effect.provideContext(Ledger, context)
})

/** The ledger in a state folder, open as long as the scope lasts. */
export const ledgerIn = (stateFolder: string) =>
  Effect.gen(function* () {
    const context = yield* Layer.build(
      SqliteLedgerInProcess({ stateFolder }).pipe(Layer.provide(SystemEntropy))
    )
    return yield* Effect.provideContext(Ledger, context)
  })

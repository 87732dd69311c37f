/** Rows of the ledger as the port's values. What does not decode was damaged on disk. */
import { Schema } from "effect"
import type { LedgerOrder, OutboxItem } from "../../../ports/Ledger.ts"
import { HighWater } from "../../../schemas/DeviceApi.ts"
import { DsseEnvelope } from "../../../schemas/Dsse.ts"
import { Count, Digest, OrderId, TimestampMs } from "../../../schemas/Ids.ts"
import { OrderState, WorkOrder } from "../../../schemas/WorkOrder.ts"

const flag = Schema.Literals([0, 1])

const OrderRow = Schema.Struct({
  document: Schema.fromJsonString(WorkOrder),
  envelope: Schema.fromJsonString(DsseEnvelope),
  digest: Digest,
  state: OrderState,
  version: Count,
  attempts: Count,
  is_idempotent: flag,
  received_at_ms: TimestampMs,
  started_at_ms: Schema.NullOr(TimestampMs)
})

/** The columns that {@link readOrder} takes. */
export const orderColumns = Object.keys(OrderRow.fields).join(", ")

const OutboxRow = Schema.Union([
  Schema.Struct({
    kind: Schema.Literal("output"),
    id: Count,
    order_id: OrderId,
    sequence: Count,
    bytes: Schema.instanceOf(Uint8Array)
  }),
  Schema.Struct({
    kind: Schema.Literal("artifacts"),
    id: Count,
    order_id: OrderId,
    path: Schema.String,
    size_bytes: Count
  }),
  Schema.Struct({
    kind: Schema.Literal("receipt"),
    id: Count,
    number: Count,
    digest: Digest,
    envelope: Schema.fromJsonString(DsseEnvelope)
  })
])

const decodeOrder = Schema.decodeUnknownSync(OrderRow)
const decodeOutbox = Schema.decodeUnknownSync(OutboxRow)
const decodeHighWater = Schema.decodeUnknownSync(HighWater)

const reading = <A>(what: string, decode: () => A): A => {
  try {
    return decode()
  } catch (cause) {
    throw new Error(`${what} in the ledger is damaged: stop the device and restore or remove the ledger`, {
      cause
    })
  }
}

export const readOrder = (row: unknown): LedgerOrder =>
  reading("an order", () => {
    const found = decodeOrder(row)
    return {
      order: found.document,
      envelope: found.envelope,
      digest: found.digest,
      state: found.state,
      version: found.version,
      attempts: found.attempts,
      idempotent: found.is_idempotent === 1,
      receivedAtMs: found.received_at_ms,
      startedAtMs: found.started_at_ms
    }
  })

export const readOutboxItem = (row: unknown): OutboxItem =>
  reading("a thing to send", () => {
    const found = decodeOutbox(row)
    switch (found.kind) {
      case "output":
        return {
          kind: "output",
          id: found.id,
          order: found.order_id,
          sequence: found.sequence,
          bytes: found.bytes
        }
      case "artifacts":
        return {
          kind: "artifacts",
          id: found.id,
          order: found.order_id,
          path: found.path,
          sizeBytes: found.size_bytes
        }
      case "receipt":
        return {
          kind: "receipt",
          id: found.id,
          number: found.number,
          digest: found.digest,
          envelope: found.envelope
        }
    }
  })

export const readHighWater = (row: unknown): HighWater =>
  reading("the high-water mark", () => decodeHighWater(row))

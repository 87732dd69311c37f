/**
 * The notary: the only one to continue the chain of receipts. Whoever ends an order, or refuses one, gives it a draft;
 * number, predecessor, device and signature are the notary's.
 */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { Count, Digest, OrderId } from "../Ids.ts"
import { Receipt } from "../Receipt.ts"

const {
  type: _type,
  number: _number,
  previous: _previous,
  device: _device,
  incarnation: _incarnation,
  software: _software,
  ...drafted
} = Receipt.fields

/** A receipt without what only the notary knows. */
export const ReceiptDraft = Schema.Struct(drafted)
export type ReceiptDraft = typeof ReceiptDraft.Type

export const Ending = Schema.Struct({
  draft: ReceiptDraft,
  /** The accepted order this ends; null for a refusal, which marks no id as seen. */
  accepted: Schema.NullOr(OrderId),
  /** Under which digest the end is remembered: the order's, or for what is not authentic the whole envelope's. */
  key: Digest,
  /** Encrypted artifacts in the spool, to be sent before the receipt. */
  artifacts: Schema.NullOr(Schema.Struct({ path: Schema.String, sizeBytes: Count }))
})
export type Ending = typeof Ending.Type

/** The ledger took no receipt; nothing was changed. Try again. */
export class NotConcluded extends Schema.TaggedError<NotConcluded>()("NotConcluded", {
  reason: Schema.String
}) {
  override get message(): string {
    return `the ledger took no receipt (${this.reason})`
  }
}

export const NotaryProtocol = RpcGroup.make(
  /** Signs and stores; false when this order (or refused envelope) was concluded before. */
  Rpc.make("Conclude", { payload: Ending, success: Schema.Boolean, error: NotConcluded })
)

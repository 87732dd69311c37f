/**
 * Judgement on an order as it came, as plain functions in the order DESIGN 4 gives: size, signatures, acceptance,
 * device, lane, place in the sequence, id, time; then what the device itself can do at the moment.
 *
 * @module
 */
import { Result } from "effect"
import { canonicalBytes } from "../crypto/CanonicalJson.ts"
import { digestOf, digestOfEnvelope } from "../crypto/Documents.ts"
import type { Engine } from "../crypto/Engine.ts"
import { verifyOrder } from "../crypto/Trust.ts"
import type { HighWater } from "../schemas/DeviceApi.ts"
import type { DsseEnvelope } from "../schemas/Dsse.ts"
import type { DeviceId, Digest } from "../schemas/Ids.ts"
import { Limits } from "../schemas/Limits.ts"
import type { BlockedCode, RefusalCode } from "../schemas/Refusals.ts"
import type { TrustRoot } from "../schemas/TrustRoot.ts"
import type { LaneName, WorkOrder } from "../schemas/WorkOrder.ts"

/** An order whose signatures the device's root confirms. */
export interface AuthenticOrder {
  readonly order: WorkOrder
  readonly digest: Digest
}

/** What is not an order of our operators. Its id proves nothing, so nothing is remembered by it. */
export interface Unauthentic {
  readonly code: RefusalCode
  readonly detail: string
  /** SHA-256 of the payload as it came: for the receipt. */
  readonly digest: Digest
  /** SHA-256 of the whole envelope: the same payload with other signatures is another thing. */
  readonly key: Digest
}

/** What is decided about an authentic order. */
export type Judgement =
  | { readonly kind: "accept" }
  /** It has this very order already: nothing is to be done. */
  | { readonly kind: "known" }
  /** Final: a receipt says so. */
  | { readonly kind: "refuse"; readonly code: RefusalCode; readonly detail: string | null }
  /** It stays with the server, for a reason that passes; so must all after it, for the sequence's sake. */
  | { readonly kind: "later"; readonly code: BlockedCode }

/** What the judgement on an authentic order depends on. */
export interface OrderFacts {
  readonly device: DeviceId
  /** Whether the operators accepted this device. */
  readonly accepted: boolean
  readonly lanes: ReadonlySet<LaneName>
  readonly rootVersion: number
  readonly highWater: HighWater | null
  /** Digest of the order remembered under the same id; null when the id is new. */
  readonly seen: Digest | null
  /** Device time. */
  readonly nowMs: number
  readonly clockProven: boolean
  /** A reason that passes, found in this turn (disk, outbox, jail …); null when there is none. */
  readonly blocked: BlockedCode | null
}

/** The first two checks: size, and signatures against the root. */
export const authenticate = (
  engine: Engine,
  root: TrustRoot,
  envelope: DsseEnvelope
): Result.Result<AuthenticOrder, Unauthentic> => {
  const refuse = (code: RefusalCode, detail: string) =>
    Result.fail<Unauthentic>({
      code,
      detail,
      digest: digestOfEnvelope(engine, envelope),
      key: digestOf(engine, canonicalBytes(envelope))
    })
  const characters = envelope.payload.length + envelope.signatures.length * 160
  if (characters > Limits.envelopeBytes)
    return refuse("too_large", `its envelope has ${characters} characters`)
  const verified = verifyOrder(engine, root, envelope)
  return Result.isSuccess(verified)
    ? Result.succeed({ order: verified.success.document, digest: verified.success.digest })
    : refuse(verified.failure.code, verified.failure.detail)
}

/** Whether an order's place lies above the high-water mark: by root version, then by counter. */
export const isAbove = (order: WorkOrder, mark: HighWater | null): boolean =>
  mark === null ||
  order.root_version > mark.root_version ||
  (order.root_version === mark.root_version && order.counter > mark.counter)

/** All further checks, on an order whose signatures are good. */
export const judge = ({ digest, order }: AuthenticOrder, facts: OrderFacts): Judgement => {
  const refuse = (code: RefusalCode, detail: string | null = null): Judgement => ({
    kind: "refuse",
    code,
    detail
  })
  if (!facts.accepted) return refuse("not_accepted")
  if (order.device !== facts.device) return refuse("wrong_device", `it is for ${order.device}`)
  if (facts.seen === digest) return { kind: "known" }
  if (!facts.lanes.has(order.lane)) return refuse("lane_unknown", `there is no lane ${order.lane}`)
  if (order.root_version > facts.rootVersion) {
    return refuse("wrong_root", `it names version ${order.root_version}, the device has ${facts.rootVersion}`)
  }
  if (!isAbove(order, facts.highWater)) {
    return refuse(
      "out_of_order",
      `its counter is ${order.counter}, the last was ${facts.highWater?.counter ?? 0}`
    )
  }
  if (facts.seen !== null) return refuse("replayed", "another order has this id")
  if (!facts.clockProven) return { kind: "later", code: "clock_unproven" }
  if (order.expires_at_ms <= facts.nowMs) return refuse("expired")
  if (order.issued_at_ms > facts.nowMs + Limits.requestClockSkewMs) return refuse("not_yet_valid")
  return facts.blocked === null ? { kind: "accept" } : { kind: "later", code: facts.blocked }
}

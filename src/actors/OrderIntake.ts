/**
 * What a poll brought, taken in: cancels and stops first, then the orders one by one. An order is accepted into the
 * ledger, refused with a receipt, or left with the server.
 */
import { Effect, Result } from "effect"
import type { RpcGroup } from "effect/rpc"
import { openUnverified } from "../crypto/Documents.ts"
import { verifyCancel } from "../crypto/Trust.ts"
import type { ActorRef } from "../kernel/index.ts"
import { CryptoEngine } from "../ports/CryptoEngine.ts"
import { DeviceClock } from "../ports/DeviceClock.ts"
import { Identity } from "../ports/Identity.ts"
import { Ledger, type LedgerOrder } from "../ports/Ledger.ts"
import type { PollAnswer } from "../schemas/DeviceApi.ts"
import type { DsseEnvelope } from "../schemas/Dsse.ts"
import type { DeviceId, Digest, OrderId } from "../schemas/Ids.ts"
import { Limits } from "../schemas/Limits.ts"
import type { LaneProtocol, StopReason } from "../schemas/protocols/Lane.ts"
import type { NotaryProtocol, ReceiptDraft } from "../schemas/protocols/Notary.ts"
import type { HeldRoot } from "../schemas/protocols/TrustKeeper.ts"
import type { BlockedCode, RefusalCode } from "../schemas/Refusals.ts"
import { isFinal, type LaneName, WorkOrder } from "../schemas/WorkOrder.ts"
import { monotonicMs } from "./Alarm.ts"
import { type AuthenticOrder, authenticate, judge } from "./OrderChecks.ts"
import { plainText } from "./PlainText.ts"

/** Whom the intake hands work to. */
export interface IntakeEnvironment {
  readonly notary: ActorRef<RpcGroup.Rpcs<typeof NotaryProtocol>>
  readonly lanes: ReadonlyMap<LaneName, ActorRef<RpcGroup.Rpcs<typeof LaneProtocol>>>
}

/** What held when the answer came. */
export interface IntakeFacts {
  readonly held: HeldRoot
  readonly accepted: boolean
  readonly blocked: BlockedCode | null
  /** No receipt can be kept: what would be refused is then passed over. */
  readonly outboxFull: boolean
  readonly refusals: RefusalCount
}

/** Receipts over refusals within an hour by the monotonic clock. Nobody may make them without end, whatever they offer. */
export interface RefusalCount {
  count: number
  sinceAt: number
}

const hourMs = 3_600_000

/** Whether another refusal may be put on record now; counts it if so. */
const mayRefuse = Effect.fnUntraced(function* ({ outboxFull, refusals }: IntakeFacts) {
  const nowAt = yield* monotonicMs
  if (nowAt - refusals.sinceAt >= hourMs) Object.assign(refusals, { count: 0, sinceAt: nowAt })
  if (outboxFull || refusals.count >= Limits.refusalsPerHour) return false
  refusals.count++
  if (refusals.count === Limits.refusalsPerHour)
    yield* Effect.logError(
      "the server offers too many orders that must be refused: more are passed over for now"
    )
  return true
})

export interface IntakeOutcome {
  readonly accepted: number
  readonly refused: number
  /** Why the rest was left with the server; null where nothing was. */
  readonly left: BlockedCode | null
}

/** An operator's cancel is remembered before it is obeyed, whether its order is known or not. */
const takeCancel = Effect.fnUntraced(function* (envelope: DsseEnvelope, held: HeldRoot) {
  const engine = yield* CryptoEngine
  const identity = yield* Identity
  const ledger = yield* Ledger
  const clock = yield* DeviceClock
  const verified = verifyCancel(engine, held.root, envelope)
  if (Result.isFailure(verified)) {
    return yield* Effect.logWarning(`a cancel is ignored: ${verified.failure.message}`)
  }
  const cancel = verified.success.document
  const stale = cancel.device !== identity.id || cancel.expires_at_ms <= (yield* clock.nowMs)
  if (stale) return
  const isNew = yield* ledger.rememberCancel(cancel.order, envelope, cancel.expires_at_ms)
  if (isNew)
    yield* Effect.logInfo("an operator cancels an order").pipe(Effect.annotateLogs({ order: cancel.order }))
})

/** Tells the lane of an unfinished order to stop it. */
const stopOrder = Effect.fnUntraced(function* (
  order: OrderId,
  reason: StopReason,
  environment: IntakeEnvironment
) {
  const ledger = yield* Ledger
  const row = yield* ledger.find(order)
  if (row === null || isFinal(row.state)) return
  const lane = environment.lanes.get(row.order.lane)
  if (lane !== undefined) yield* Effect.ignore(lane.tell("Stop", { order, reason }))
})

/** Obeys the cancels and stops of an answer, and once more what was kept of earlier ones: a word to a lane can be lost. */
export const takeInterventions = Effect.fnUntraced(function* (
  answer: Pick<PollAnswer, "cancels" | "stops">,
  held: HeldRoot,
  environment: IntakeEnvironment
) {
  const ledger = yield* Ledger
  for (const envelope of answer.cancels) yield* takeCancel(envelope, held)
  const canceled = new Set(yield* ledger.cancels)
  const rows = canceled.size === 0 ? [] : yield* ledger.unfinished()
  for (const { order } of rows) {
    if (canceled.has(order.id)) yield* stopOrder(order.id, "canceled_by_operator", environment)
  }
  for (const order of answer.stops) yield* stopOrder(order, "stopped_by_server", environment)
})

/** A refusal's receipt. It marks no id as seen: only an accepted order does. */
const refuse = Effect.fnUntraced(function* (
  refusal: {
    readonly code: RefusalCode
    readonly detail: string | null
    readonly order: Pick<WorkOrder, "id" | "payload"> | null
    readonly digest: Digest
    readonly key: Digest
  },
  facts: IntakeFacts,
  environment: IntakeEnvironment
) {
  const clock = yield* DeviceClock
  const nowMs = yield* clock.nowMs
  const draft: ReceiptDraft = {
    order: refusal.order?.id ?? null,
    order_digest: refusal.digest,
    payload_digest: refusal.order?.payload.digest ?? null,
    state: "rejected",
    reason: refusal.code,
    detail: refusal.detail === null ? null : plainText(refusal.detail, 300),
    exit_code: null,
    signal: null,
    attempts: 0,
    received_at_ms: nowMs,
    started_at_ms: null,
    ended_at_ms: nowMs,
    usage: null,
    output: null,
    artifacts: null,
    isolation: null,
    root_version: facts.held.root.version
  }
  yield* environment.notary.ask("Conclude", { draft, accepted: null, key: refusal.key, artifacts: null })
  yield* Effect.logWarning(`an order is refused: ${refusal.code}`).pipe(
    Effect.annotateLogs({ order: draft.order, detail: draft.detail })
  )
})

/** What of the ledger the judgement needs. */
const judgeByLedger = Effect.fnUntraced(function* (
  authentic: AuthenticOrder,
  facts: IntakeFacts,
  environment: IntakeEnvironment
) {
  const ledger = yield* Ledger
  const identity = yield* Identity
  const clock = yield* DeviceClock
  if (yield* ledger.concluded(authentic.digest)) return { kind: "known" as const }
  const row: LedgerOrder | null = yield* ledger.find(authentic.order.id)
  return judge(authentic, {
    device: identity.id as DeviceId,
    accepted: facts.accepted,
    lanes: new Set(environment.lanes.keys()),
    rootVersion: facts.held.root.version,
    highWater: yield* ledger.highWater,
    seen: row?.digest ?? null,
    nowMs: yield* clock.nowMs,
    clockProven: yield* clock.proven,
    blocked: facts.blocked
  })
})

/** Accepted orders that may wait on the device; beyond it the server keeps them. All lanes count together. */
export const laneQueue = 32

/** What became of one envelope. */
type Taken =
  | { readonly kind: "accepted" | "refused" | "known" | "full" }
  | { readonly kind: "later"; readonly code: BlockedCode }

const refused: Taken = { kind: "refused" }
/** As if it had not come; if it comes again, it is looked at again. */
const passedOver: Taken = { kind: "known" }

const takeAuthentic = Effect.fnUntraced(function* (
  authentic: AuthenticOrder,
  envelope: DsseEnvelope,
  facts: IntakeFacts,
  environment: IntakeEnvironment
) {
  const { digest, order } = authentic
  const judgement = yield* judgeByLedger(authentic, facts, environment)
  const reject = Effect.fnUntraced(function* (code: RefusalCode, detail: string | null) {
    if (!(yield* mayRefuse(facts))) return passedOver
    yield* refuse({ code, detail, order, digest, key: digest }, facts, environment)
    return refused
  })
  switch (judgement.kind) {
    case "known":
    case "later":
      return judgement as Taken
    case "refuse":
      return yield* reject(judgement.code, judgement.detail)
    case "accept": {
      const ledger = yield* Ledger
      const clock = yield* DeviceClock
      // The poll said that no lane is free: a server that does not heed it must not fill the ledger.
      if ((yield* ledger.unfinished()).length >= laneQueue) return { kind: "full" } satisfies Taken as Taken
      const accepted = yield* ledger.accept(order, envelope, digest, yield* clock.nowMs)
      if (accepted !== "accepted") return yield* reject(accepted, null)
      yield* Effect.logInfo("an order is accepted").pipe(
        Effect.annotateLogs({ order: order.id, lane: order.lane, counter: order.counter })
      )
      const lane = environment.lanes.get(order.lane)
      if (lane !== undefined) yield* Effect.ignore(lane.tell("Wake"))
      return { kind: "accepted" } satisfies Taken as Taken
    }
  }
})

const takeOne = Effect.fnUntraced(function* (
  envelope: DsseEnvelope,
  facts: IntakeFacts,
  environment: IntakeEnvironment
) {
  const engine = yield* CryptoEngine
  const authentic = authenticate(engine, facts.held.root, envelope)
  if (Result.isSuccess(authentic))
    return yield* takeAuthentic(authentic.success, envelope, facts, environment)
  const ledger = yield* Ledger
  const { code, detail, digest, key } = authentic.failure
  if ((yield* ledger.concluded(key)) || !(yield* mayRefuse(facts))) return passedOver
  const claimed = openUnverified(engine, "order", WorkOrder, envelope)
  const order = Result.isSuccess(claimed) ? claimed.success.document : null
  yield* refuse({ code, detail, order, digest, key }, facts, environment)
  return refused
})

/**
 * Takes in the orders of an answer in their order. The first one that must wait leaves all after it with the server:
 * accepting a later counter would put the earlier one out of order for good.
 */
export const takeOrders = Effect.fnUntraced(function* (
  envelopes: ReadonlyArray<DsseEnvelope>,
  facts: IntakeFacts,
  environment: IntakeEnvironment
) {
  let accepted = 0
  let refused = 0
  for (const envelope of envelopes.slice(0, Limits.pollOrders)) {
    const taken: Taken = yield* takeOne(envelope, facts, environment)
    if (taken.kind === "full") break
    if (taken.kind === "later")
      return { accepted, refused, left: taken.code } satisfies IntakeOutcome as IntakeOutcome
    if (taken.kind === "accepted") accepted++
    if (taken.kind === "refused") refused++
  }
  return { accepted, refused, left: null } satisfies IntakeOutcome as IntakeOutcome
})

/**
 * One turn of the main loop, in the paper's order: self → connectivity → disk → poll → hand orders to the lanes → end of
 * turn. What is wrong with the device goes along with the poll; only a missing server, or missing trust, leaves it out.
 */
import { Deferred, Effect, Result } from "effect"
import type { RpcGroup } from "effect/rpc"
import type { ActorRef } from "../kernel/index.ts"
import { DeviceClock } from "../ports/DeviceClock.ts"
import { HostProbe } from "../ports/HostProbe.ts"
import { Ledger, type LedgerOrder } from "../ports/Ledger.ts"
import { type Answer, ServerLink } from "../ports/ServerLink.ts"
import type { Condition } from "../schemas/Conditions.ts"
import type { PollAnswer, PollRequest } from "../schemas/DeviceApi.ts"
import type { LifeId } from "../schemas/Ids.ts"
import { Limits } from "../schemas/Limits.ts"
import type { JailGuardProtocol } from "../schemas/protocols/JailGuard.ts"
import type { TurnEnd } from "../schemas/protocols/MainLoop.ts"
import type { OutboxProtocol } from "../schemas/protocols/Outbox.ts"
import type { HeldRoot, TrustKeeperProtocol, TrustView } from "../schemas/protocols/TrustKeeper.ts"
import type { BlockedCode } from "../schemas/Refusals.ts"
import { expiryWarning } from "../schemas/RootExpiry.ts"
import type { LaneName, OrderProgress } from "../schemas/WorkOrder.ts"
import { codesOf, condition } from "./DeviceConditions.ts"
import {
  type IntakeEnvironment,
  type IntakeOutcome,
  laneQueue,
  type RefusalCount,
  takeInterventions,
  takeOrders
} from "./OrderIntake.ts"
import { resting } from "./Progress.ts"
import { signStatement } from "./SignStatement.ts"
import { linkProblem, routeFailureOf } from "./TrustSteps.ts"

export interface TurnOptions {
  readonly longPollMs: number
  /** False: an agent alone, without lanes. It polls to be heard of, and to hear of operators' decisions and new roots. */
  readonly takesOrders: boolean
  readonly diskReserveBytes: number
}

/** Whom a turn talks to. */
export interface TurnEnvironment extends IntakeEnvironment, TurnOptions {
  readonly trust: ActorRef<RpcGroup.Rpcs<typeof TrustKeeperProtocol>>
  readonly jailGuard: ActorRef<RpcGroup.Rpcs<typeof JailGuardProtocol>>
  readonly outbox: ActorRef<RpcGroup.Rpcs<typeof OutboxProtocol>>
  /** What the other parts know to be weaker than it should be. */
  readonly conditions: Effect.Effect<ReadonlyArray<Condition>>
}

/** What one life of the main loop carries from turn to turn, and what may reach into a running one. */
export interface TurnState {
  readonly refusals: RefusalCount
  /** Completed to end a poll that was held open although nothing could come of it. */
  abort: Deferred.Deferred<void>
  /** Whether the running poll is such a one. */
  abortable: boolean
  prunedAtMs: number
  /** Random name of this life of the loop, and how many polls it has made. */
  readonly life: LifeId
  turns: number
}

const pruneEveryMs = 600_000
/** The outbox must have room for one more job's results. */
const outboxReserveBytes = Limits.artifactBytes + Limits.jobOutputBytes
/** So long does the first poll of a life stay open, on which the lanes wait: not at all. */
const atOnce = 0

/** The device's own state, as found in this turn. */
interface Findings {
  readonly clockProven: boolean
  readonly rootExpired: boolean
  readonly agentOnly: boolean
  readonly jailMissing: boolean
  readonly diskLow: boolean
  readonly outboxFull: boolean
  /** The same and more, in words for the poll and for people. */
  readonly degraded: ReadonlyArray<Condition>
}

/** Why the device takes no orders, the gravest reason first. */
export const blockedBy = (
  view: Pick<TrustView, "phase" | "objection">,
  found: Findings
): BlockedCode | null => {
  if (view.phase !== "accepted") return view.phase
  if (!found.clockProven) return "clock_unproven"
  if (found.rootExpired) return "root_expired"
  if (view.objection !== null) return view.objection
  if (found.agentOnly) return "agent_only"
  if (found.jailMissing) return "no_jail"
  if (found.diskLow) return "disk_low"
  return found.outboxFull ? "outbox_full" : null
}

/** How near its end the root is. Before the time is proven this may be wrong, as everything about time. */
const rootConditions = ({ root }: HeldRoot, nowMs: number): ReadonlyArray<Condition> => {
  const warning = expiryWarning(root, nowMs)
  if (warning === undefined) return []
  return [condition(warning.level === "expired" ? "root_expired" : "root_expiring", warning.text)]
}

/** Looks at jail, disk, outbox, root and clock; `parts` is what the other parts know. */
const look = Effect.fnUntraced(function* (
  held: HeldRoot,
  environment: TurnEnvironment,
  parts: ReadonlyArray<Condition>
) {
  const probe = yield* HostProbe
  const ledger = yield* Ledger
  const clock = yield* DeviceClock
  const verdict = yield* Effect.option(environment.jailGuard.ask("Verdict"))
  const free = yield* Effect.result(probe.freeDiskBytes)
  const size = yield* ledger.outboxSize
  const nowMs = yield* clock.nowMs
  const found: Omit<Findings, "degraded"> = {
    clockProven: yield* clock.proven,
    rootExpired: held.root.expires_at_ms <= nowMs,
    agentOnly: !environment.takesOrders,
    // Before the first check is done nothing is known against it; a lane that is faster waits for the verdict.
    jailMissing: verdict._tag === "Some" && verdict.value.problem !== null,
    diskLow: Result.isFailure(free) || free.success < environment.diskReserveBytes,
    outboxFull: size.items >= Limits.outboxItems || size.bytes + outboxReserveBytes > Limits.outboxBytes
  }
  const kept = environment.diskReserveBytes
  const degraded = [
    ...(found.clockProven ? [] : [condition("clock_unproven")]),
    ...rootConditions(held, nowMs),
    ...(Result.isFailure(free) ? [condition("disk_unknown", free.failure.reason)] : []),
    ...(Result.isSuccess(free) && found.diskLow
      ? [condition("disk_low", `${free.success} bytes are free, ${kept} are kept`)]
      : []),
    ...(found.outboxFull ? [condition("outbox_full", `${size.items} items, ${size.bytes} bytes`)] : []),
    ...parts
  ]
  return { ...found, degraded }
})

/** With what the server holds against the device. */
const withObjection = (
  { objection }: Pick<TrustView, "objection">,
  { degraded }: Findings
): ReadonlyArray<Condition> => (objection === null ? degraded : [condition(objection), ...degraded])

/** Unfinished orders with what the lanes know beyond the ledger. */
const activeOrders = Effect.fnUntraced(function* (
  rows: ReadonlyArray<LedgerOrder>,
  environment: TurnEnvironment
) {
  const clock = yield* DeviceClock
  const nowMs = yield* clock.nowMs
  const current = new Map<string, OrderProgress>()
  for (const lane of environment.lanes.values()) {
    const status = yield* Effect.option(lane.ask("Status"))
    if (status._tag === "Some" && status.value.current !== null)
      current.set(status.value.current.order, status.value.current)
  }
  return rows.slice(0, Limits.pollActive).map((row) => current.get(row.order.id) ?? resting(row, nowMs))
})

const makeRequest = Effect.fnUntraced(function* (
  view: TrustView,
  held: HeldRoot,
  blocked: BlockedCode | null,
  degraded: ReadonlyArray<Condition>,
  state: TurnState,
  environment: TurnEnvironment
) {
  const ledger = yield* Ledger
  const rows = yield* ledger.unfinished()
  const head = yield* ledger.chainHead
  const cancels = yield* ledger.cancels
  const full = rows.length >= laneQueue
  const lanes: ReadonlyArray<LaneName> = blocked !== null || full ? [] : [...environment.lanes.keys()]
  const highWater = yield* ledger.highWater
  const request: PollRequest = {
    incarnation: ledger.incarnation,
    life: state.life,
    turn: state.turns++,
    statement: yield* signStatement({ highWater, lastReceipt: head.number }),
    root_version: held.root.version,
    admission_sequence: view.admissionSequence,
    high_water: highWater,
    last_receipt: head.number,
    free_lanes: lanes,
    active: yield* activeOrders(rows, environment),
    cancels_seen: cancels.slice(-Limits.pollCancels),
    blocked,
    degraded: codesOf(degraded),
    wait_ms: blocked === "clock_unproven" || !view.heard ? atOnce : environment.longPollMs,
    ...(view.onionHeld === null ? {} : { onion_held: view.onionHeld })
  }
  return request
})

/** Takes in an answer: time, trust, cancels, orders. */
const handOver = Effect.fnUntraced(function* (
  answer: Answer<PollAnswer>,
  state: TurnState,
  environment: TurnEnvironment,
  parts: ReadonlyArray<Condition>
) {
  const clock = yield* DeviceClock
  yield* clock.accept(answer.serverTimeMs)
  const { body, rootVersion } = answer
  const view = yield* environment.trust.ask("Heard", {
    rootVersion,
    admission: body.admission,
    objection: body.objection === "not_enrolled" ? null : body.objection,
    onionShared: body.onion_shared ?? null
  })
  if (body.objection === "not_enrolled")
    yield* Effect.ignore(environment.trust.tell("Refused", { code: "unknown_device" }))
  else if (view.objection !== null)
    yield* Effect.ignore(environment.trust.tell("Refused", { code: "not_accepted" }))
  const held = view.held as HeldRoot
  yield* takeInterventions(body, held, environment)
  const found = yield* look(held, environment, parts)
  // Orders are judged by the newest root there is: until it is here they stay with the server.
  const outdated = rootVersion !== null && rootVersion > held.root.version
  const outcome: IntakeOutcome = outdated
    ? { accepted: 0, refused: 0, left: null }
    : yield* takeOrders(
        body.orders,
        {
          held,
          accepted: view.phase === "accepted",
          blocked: view.phase === "accepted" ? blockedBy(view, found) : null,
          outboxFull: found.outboxFull,
          refusals: state.refusals
        },
        environment
      )
  return { outcome, blocked: blockedBy(view, found), degraded: withObjection(view, found) }
})

const waiting = (blocked: BlockedCode, detail: string): TurnEnd => ({
  kind: "waiting",
  blocked,
  sleepMs: null,
  accepted: 0,
  refused: 0,
  again: false,
  reached: null,
  code: null,
  degraded: [],
  detail
})

const failed = (
  blocked: BlockedCode | null,
  reached: boolean | null,
  sleepMs: number | null,
  detail: string
): TurnEnd => ({ ...waiting("not_enrolled", detail), kind: "failed", blocked, reached, sleepMs })

/** The poll and what comes of it. */
const pollOnce = Effect.fnUntraced(function* (
  view: TrustView,
  held: HeldRoot,
  state: TurnState,
  environment: TurnEnvironment
) {
  const link = yield* ServerLink
  const parts = yield* environment.conditions
  const found = yield* look(held, environment, parts)
  const before = blockedBy(view, found)
  const request = yield* makeRequest(view, held, before, withObjection(view, found), state, environment)
  state.abortable = request.free_lanes.length === 0
  const answer = yield* Effect.raceFirst(
    Effect.result(link.poll(request)),
    Effect.as(Deferred.await(state.abort), null)
  )
  state.abortable = false
  if (answer === null)
    return {
      ...waiting("clock_unproven", "something changed"),
      blocked: before,
      again: true,
      degraded: found.degraded
    }
  if (Result.isFailure(answer)) {
    const error = answer.failure
    const refused = error._tag === "ServerRefused" ? error : null
    if (
      refused?.code === "unknown_device" ||
      refused?.code === "not_accepted" ||
      refused?.code === "revoked"
    ) {
      yield* Effect.ignore(environment.trust.tell("Refused", { code: refused.code }))
    }
    const code = routeFailureOf(error)
    if (code === "onion_not_authorised") yield* Effect.ignore(environment.trust.tell("NotAuthorised"))
    if (code === "onion_unexplained") yield* Effect.ignore(environment.trust.tell("OnionUnexplained"))
    // A server that refuses was reached; what answers in its place was not it.
    const patienceMs = error._tag === "ServerUntrusted" ? null : (error.retryAfterMs ?? null)
    const ended = failed(before, refused !== null, patienceMs, linkProblem(error))
    return { ...ended, code, degraded: withObjection(view, found) }
  }
  const { blocked, degraded, outcome } = yield* handOver(answer.success, state, environment, parts)
  const polled: TurnEnd = {
    kind: "polled",
    blocked,
    sleepMs: answer.success.body.sleep_ms,
    accepted: outcome.accepted,
    refused: outcome.refused,
    // The first poll, not held open, took no orders or was too early for them; the server's sleep is for those who hold none.
    again: request.wait_ms < environment.longPollMs || (before === "clock_unproven" && blocked === null),
    reached: true,
    code: null,
    degraded,
    detail: ""
  }
  return polled
})

/** Forgets what is over, now and then. */
const tidy = Effect.fnUntraced(function* (state: TurnState) {
  const clock = yield* DeviceClock
  const ledger = yield* Ledger
  const nowMs = yield* clock.nowMs
  if (!(yield* clock.proven) || nowMs - state.prunedAtMs < pruneEveryMs) return
  state.prunedAtMs = nowMs
  // A disk that is full keeps nobody from polling.
  yield* Effect.catch(ledger.prune(nowMs), (error) => Effect.logWarning(error.message))
})

/** One turn. It fails never: how it ended is said by its result. */
export const turn = (state: TurnState, environment: TurnEnvironment) =>
  Effect.gen(function* () {
    yield* tidy(state)
    const view = yield* environment.trust.ask("View")
    // Before that there is nothing to poll for; the trust keeper knows whom it has reached.
    const phase = view.held === null ? "not_enrolled" : view.phase
    if (view.held === null || phase !== "accepted") {
      const ended = waiting(phase === "accepted" ? "not_enrolled" : phase, view.detail)
      return { ...ended, degraded: yield* environment.conditions }
    }
    return yield* pollOnce(view, view.held, state, environment)
  }).pipe(
    Effect.catch((error) => {
      const ended = failed(null, null, null, error.message)
      const isLedger = error._tag === "LedgerError"
      return Effect.succeed(
        isLedger ? { ...ended, degraded: [condition("ledger_unreadable", error.message)] } : ended
      )
    })
  )

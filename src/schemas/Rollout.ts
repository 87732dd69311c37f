/**
 * Rollouts: one package for many devices, in phases. The plan is what an operator signs; it names every device and the
 * order each one gets. A server holds the orders back until their phase has come; it can delay and stop, and what it
 * released too early shows in the devices' receipts.
 */
import { Schema } from "effect"
import { DsseEnvelope } from "./Dsse.ts"
import { Count, DeviceId, intBetween, labelUpTo, Name, OrderId, RootVersion, TimestampMs } from "./Ids.ts"
import { Limits } from "./Limits.ts"
import { LaneName, OrderState, PayloadReference } from "./WorkOrder.ts"

/** A rollout's id: 128 random bits, base32. */
export const RolloutId = Schema.String.check(Schema.isPattern(/^rol_[a-z2-7]{26}$/)).pipe(
  Schema.brand("RolloutId")
)
export type RolloutId = typeof RolloutId.Type

/** A device of a phase, and the id of the order it gets. The order itself is signed apart. */
export const PlannedDevice = Schema.Struct({ device: DeviceId, order: OrderId })
export type PlannedDevice = typeof PlannedDevice.Type

export const RolloutPhase = Schema.Struct({
  /** Share of the phase's devices, in percent, that must have succeeded before the next phase. Silent ones have not. */
  success_percent: intBetween(0, 100),
  /** How long to wait once that is so, before the next phase begins. */
  soak_ms: intBetween(0, Limits.orderLifetimeMs),
  /** After this a device without a receipt counts as missing. */
  timeout_ms: intBetween(1, Limits.orderLifetimeMs),
  devices: Schema.Array(PlannedDevice).check(Schema.isMinLength(1), Schema.isMaxLength(Limits.rolloutDevices))
})
export type RolloutPhase = typeof RolloutPhase.Type

/** How long a plan may take without pauses, in milliseconds. */
export const durationOf = (phases: ReadonlyArray<Pick<RolloutPhase, "soak_ms" | "timeout_ms">>): number =>
  phases.reduce((sum, phase) => sum + phase.soak_ms + phase.timeout_ms, 0)

const hasDoubles = (texts: ReadonlyArray<string>): boolean => new Set(texts).size !== texts.length

export const RolloutPlan = Schema.Struct({
  type: Schema.Literal("postern/rollout/v1"),
  id: RolloutId,
  /** What people call the package. */
  name: labelUpTo(Limits.labelLength),
  /** The group's name in the device book of the operator who signs. */
  group: Name,
  root_version: RootVersion,
  issued_at_ms: TimestampMs,
  /** No phase begins after this, and no order of the rollout expires before it. */
  expires_at_ms: TimestampMs,
  lane: LaneName,
  payload: PayloadReference,
  /** More failed devices than this, over all phases, pause the rollout at once. */
  maximum_failures: Count,
  phases: Schema.Array(RolloutPhase).check(Schema.isMinLength(1), Schema.isMaxLength(Limits.rolloutPhases))
}).check(
  Schema.makeFilter((plan) => {
    const devices = plan.phases.flatMap((phase) => phase.devices)
    if (devices.length > Limits.rolloutDevices) return `it has more than ${Limits.rolloutDevices} devices`
    if (hasDoubles(devices.map(({ device }) => device))) return "it names a device twice"
    if (hasDoubles(devices.map(({ order }) => order))) return "it names an order twice"
    const lifetimeMs = plan.expires_at_ms - plan.issued_at_ms
    if (lifetimeMs > Limits.orderLifetimeMs) return "it lives longer than 90 days"
    return durationOf(plan.phases) <= lifetimeMs || "it may take longer than it lives"
  })
)
export type RolloutPlan = typeof RolloutPlan.Type

/** What an operator tells a rollout. `resume` also accepts what has failed up to then. */
export const RolloutAction = Schema.Literals(["pause", "resume", "abort"])
export type RolloutAction = typeof RolloutAction.Type

/** An operator's signed word to a rollout. */
export const RolloutControl = Schema.Struct({
  type: Schema.Literal("postern/rollout-control/v1"),
  rollout: RolloutId,
  action: RolloutAction,
  /** The phase the operator saw, from 0; -1 before the first. */
  phase: intBetween(-1, Limits.rolloutPhases - 1),
  /** Rises with every word to this rollout; a lower one is refused. */
  sequence: intBetween(1, Number.MAX_SAFE_INTEGER),
  root_version: RootVersion,
  issued_at_ms: TimestampMs
})
export type RolloutControl = typeof RolloutControl.Type

/**
 * `loading`: not every order of the plan is there yet. `completed`: the last phase has ended. `expired`: the plan's time
 * was over before that.
 */
export const RolloutState = Schema.Literals([
  "loading",
  "running",
  "paused",
  "completed",
  "aborted",
  "expired"
])
export type RolloutState = typeof RolloutState.Type

/** Whether nothing more is released. */
export const isEnded = (state: RolloutState): boolean =>
  state === "completed" || state === "aborted" || state === "expired"

/** Why a rollout is paused. */
export const PauseReason = Schema.Literals(["operator", "too_few_succeeded", "too_many_failures"])
export type PauseReason = typeof PauseReason.Type

/**
 * Where one device stands. `absent`: its order has not reached the server. `waiting`: its phase has not come. `missing`:
 * no receipt in the phase's time, or the order was taken away from it. `withdrawn`: taken back before its phase came.
 */
export const DeviceOutcome = Schema.Literals([
  "absent",
  "waiting",
  "open",
  "succeeded",
  "failed",
  "missing",
  "withdrawn"
])
export type DeviceOutcome = typeof DeviceOutcome.Type

/** How many devices stand where. */
export const RolloutCounts = Schema.Struct({
  absent: Count,
  waiting: Count,
  open: Count,
  succeeded: Count,
  failed: Count,
  missing: Count,
  withdrawn: Count
})
export type RolloutCounts = typeof RolloutCounts.Type

/** A rollout as the server shows it. */
export const RolloutView = Schema.Struct({
  id: RolloutId,
  name: Schema.String,
  group: Name,
  state: RolloutState,
  reason: Schema.NullOr(PauseReason),
  /** From 0; -1 before the first has begun. */
  phase: Schema.Int,
  phases: Count,
  phase_started_at_ms: Schema.NullOr(TimestampMs),
  /** When the phase had succeeded, and its soak began. */
  settled_at_ms: Schema.NullOr(TimestampMs),
  version: Count,
  created_at_ms: TimestampMs,
  created_by: Schema.String,
  changed_at_ms: TimestampMs,
  expires_at_ms: TimestampMs,
  control_sequence: Count,
  counts: RolloutCounts
})
export type RolloutView = typeof RolloutView.Type

export const RolloutDeviceView = Schema.Struct({
  device: DeviceId,
  order: OrderId,
  phase: Count,
  outcome: DeviceOutcome,
  /** The order's state; null while the order has not reached the server. */
  state: Schema.NullOr(OrderState),
  /** An operator went on although this one had not succeeded. */
  excused: Schema.Boolean
})
export type RolloutDeviceView = typeof RolloutDeviceView.Type

/** One rollout with everything an operator checks it by. */
export const RolloutDetail = Schema.Struct({
  rollout: RolloutView,
  plan: DsseEnvelope,
  controls: Schema.Array(DsseEnvelope),
  devices: Schema.Array(RolloutDeviceView)
})
export type RolloutDetail = typeof RolloutDetail.Type

/**
 * What comes next in a rollout. Pure functions over a plan, how its devices stand, and the time; the server decides by
 * them, and the operator's CLI checks the server by the same.
 *
 * @module
 */
import {
  type DeviceOutcome,
  isEnded,
  type PauseReason,
  type RolloutCounts,
  type RolloutPhase,
  type RolloutPlan,
  type RolloutState
} from "./Rollout.ts"
import { isFinal, type OrderState } from "./WorkOrder.ts"

/** What the judgement needs of a rollout. */
export interface RolloutStanding {
  readonly plan: RolloutPlan
  readonly state: RolloutState
  /** From 0; -1 before the first. */
  readonly phase: number
  readonly phaseStartedAtMs: number | null
  readonly settledAtMs: number | null
  readonly pausedAtMs: number | null
}

/** How one device of a rollout stands. `state` is its order's, null before the order came. */
export interface MemberStanding {
  readonly phase: number
  readonly state: OrderState | null
  /** An operator went on without it. */
  readonly excused: boolean
}

/** Devices that stand alike, counted. */
export interface RolloutTally extends MemberStanding {
  readonly count: number
}

/** One step of an open rollout, taken by the server itself. */
export type RolloutMove =
  /** Gives out the orders of a phase. */
  | { readonly kind: "release"; readonly phase: number }
  /** The phase has succeeded; its soak begins. */
  | { readonly kind: "settle" }
  | { readonly kind: "pause"; readonly reason: Exclude<PauseReason, "operator"> }
  | { readonly kind: "end"; readonly state: "completed" | "expired" }

/** How many of `size` devices must succeed. */
export const requiredOf = (size: number, percent: number): number => Math.ceil((size * percent) / 100)

const currentPhase = ({ phase, plan }: RolloutStanding): RolloutPhase | undefined => plan.phases[phase]

/** When the present phase's time is over, or null before the first. */
const phaseEndsAtMs = (standing: RolloutStanding): number | null => {
  const phase = currentPhase(standing)
  return phase === undefined || standing.phaseStartedAtMs === null
    ? null
    : standing.phaseStartedAtMs + phase.timeout_ms
}

/** Whether the present phase's time is over. While a rollout is paused, its clock stands still. */
export const isTimedOut = (standing: RolloutStanding, nowMs: number): boolean => {
  const endsAtMs = phaseEndsAtMs(standing)
  return endsAtMs !== null && (standing.pausedAtMs ?? nowMs) >= endsAtMs
}

/** Where one device stands. */
export const outcomeOf = (
  standing: RolloutStanding,
  member: Pick<MemberStanding, "phase" | "state">,
  nowMs: number
): DeviceOutcome => {
  const { phase, state } = member
  if (state === null) return "absent"
  if (state === "succeeded") return "succeeded"
  if (state === "removed") return phase > standing.phase ? "withdrawn" : "missing"
  if (isFinal(state)) return "failed"
  if (phase > standing.phase) return "waiting"
  if (phase < standing.phase || isTimedOut(standing, nowMs)) return "missing"
  return isEnded(standing.state) && standing.state !== "aborted" ? "missing" : "open"
}

/** How many devices stand where; of one phase, or of all. */
export const countsOf = (
  standing: RolloutStanding,
  tally: ReadonlyArray<RolloutTally>,
  nowMs: number,
  phase?: number
): RolloutCounts => {
  const counts = { absent: 0, waiting: 0, open: 0, succeeded: 0, failed: 0, missing: 0, withdrawn: 0 }
  for (const group of tally) {
    if (phase !== undefined && group.phase !== phase) continue
    counts[outcomeOf(standing, group, nowMs)] += group.count
  }
  return counts
}

/** What is to be done now, or until when nothing is to be done. */
export type RolloutStep = RolloutMove | { readonly kind: "wait"; readonly untilMs: number | null }

const total = (counts: RolloutCounts): number => Object.values(counts).reduce((sum, count) => sum + count, 0)

const judgePhase = (
  standing: RolloutStanding,
  phase: RolloutPhase,
  tally: ReadonlyArray<RolloutTally>,
  nowMs: number
): RolloutStep => {
  const { plan, settledAtMs } = standing
  // Whoever an operator went on without counts neither way.
  const counted = countsOf(
    standing,
    tally.filter(({ excused }) => !excused),
    nowMs,
    standing.phase
  )
  const required = requiredOf(total(counted), phase.success_percent)
  if (total(counted) - counted.failed - counted.missing < required)
    return { kind: "pause", reason: "too_few_succeeded" }
  if (counted.open > 0) return { kind: "wait", untilMs: phaseEndsAtMs(standing) }
  if (standing.phase === plan.phases.length - 1) return { kind: "end", state: "completed" }
  if (settledAtMs === null) return { kind: "settle" }
  const soakedAtMs = settledAtMs + phase.soak_ms
  return nowMs < soakedAtMs
    ? { kind: "wait", untilMs: soakedAtMs }
    : { kind: "release", phase: standing.phase + 1 }
}

/** The next step of a rollout. */
export const nextStep = (
  standing: RolloutStanding,
  tally: ReadonlyArray<RolloutTally>,
  nowMs: number
): RolloutStep => {
  const { plan, state } = standing
  if (isEnded(state)) return { kind: "wait", untilMs: null }
  if (nowMs >= plan.expires_at_ms) return { kind: "end", state: "expired" }
  const untilExpiry = { kind: "wait", untilMs: plan.expires_at_ms } as const
  if (state === "paused") return untilExpiry
  const phase = currentPhase(standing)
  if (phase === undefined) {
    const isComplete = tally.every((group) => group.state !== null)
    return isComplete ? { kind: "release", phase: 0 } : untilExpiry
  }
  const step = judgePhase(standing, phase, tally, nowMs)
  if (step.kind === "pause") return step
  const failed = tally.filter((group) => !group.excused && outcomeOf(standing, group, nowMs) === "failed")
  if (failed.reduce((sum, { count }) => sum + count, 0) > plan.maximum_failures)
    return { kind: "pause", reason: "too_many_failures" }
  return step.kind === "wait" && step.untilMs !== null
    ? { kind: "wait", untilMs: Math.min(step.untilMs, plan.expires_at_ms) }
    : step
}

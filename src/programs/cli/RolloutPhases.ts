/**
 * From a group and a few flags to phases: who goes first, how many next, and what must hold in between. Pure but for the
 * flags' own checks.
 *
 * @module
 */
import { Effect, Option } from "effect"
import { Flag } from "effect/cli"
import { isMeant } from "../../adapters/operator/DeviceBook.ts"
import type { DeviceRecord } from "../../adapters/operator/Records.ts"
import { Limits } from "../../schemas/Limits.ts"
import { durationOf, type RolloutPhase } from "../../schemas/Rollout.ts"
import { requiredOf } from "../../schemas/RolloutJudgement.ts"
import { failure, usage } from "./Failure.ts"
import { durationFlag } from "./Flags.ts"
import { showDuration } from "./Text.ts"

/** Flags of a rollout, beside those of any order. */
export const rolloutFlags = {
  group: Flag.String("group").pipe(
    Flag.withMetavar("GROUP"),
    Flag.withDescription("A rollout to all devices of a group, in phases"),
    Flag.optional
  ),
  canary: Flag.Int("canary").pipe(
    Flag.withMetavar("COUNT"),
    Flag.withDescription("With --group: so many devices go first; default 1, 0 for none"),
    Flag.optional
  ),
  first: Flag.String("first").pipe(
    Flag.withMetavar("DEVICE"),
    Flag.withDescription("With --group: this device is among the first; may be given again"),
    Flag.atMost(Limits.rolloutDevices)
  ),
  phases: Flag.String("phases").pipe(
    Flag.withMetavar("LIST"),
    Flag.withDescription("With --group: how many have it after each phase (10%,50%,100%); default 100%"),
    Flag.optional
  ),
  success: Flag.String("success").pipe(
    Flag.withMetavar("PERCENT"),
    Flag.withDescription("With --group: share of a phase that must succeed; default 100%"),
    Flag.optional
  ),
  maximumFailures: Flag.Int("max-failures").pipe(
    Flag.withMetavar("COUNT"),
    Flag.withDescription(
      "With --group: more failed devices pause the rollout at once; default what --success leaves"
    ),
    Flag.optional
  ),
  soak: durationFlag("soak", "With --group: how long to wait between phases", "10m"),
  phaseTimeout: durationFlag(
    "phase-timeout",
    "With --group: after this, devices of a phase without a receipt are missing",
    "1d"
  )
}

/** The values of {@link rolloutFlags}. */
export type RolloutValues = {
  readonly [Key in keyof typeof rolloutFlags]: (typeof rolloutFlags)[Key] extends Flag.Flag<infer A>
    ? A
    : never
}

/** A phase before its orders have ids. */
export interface PhaseDraft extends Omit<RolloutPhase, "devices"> {
  readonly records: ReadonlyArray<DeviceRecord>
}

/** 0 to 100 of `95%` or `95`; undefined for anything else. */
export const parsePercent = (text: string): number | undefined => {
  const match = /^([0-9]{1,3})%?$/.exec(text)
  const value = Number(match?.[1])
  return match !== null && value <= 100 ? value : undefined
}

/**
 * How many devices have the package after each phase: `10%` is a share, rounded up, `5` a count. Undefined unless the list
 * rises and ends with everybody.
 */
export const parseTargets = (text: string, total: number): ReadonlyArray<number> | undefined => {
  const parts = text.split(",").map((part) => part.trim())
  const targets = parts.map((part) => {
    const match = /^([0-9]{1,6})(%?)$/.exec(part)
    if (match === null) return Number.NaN
    const value = Number(match[1])
    if (match[2] === "") return value <= total ? value : Number.NaN
    return value <= 100 ? requiredOf(total, value) : Number.NaN
  })
  // In a small group shares round up to the same count, so that they are also held against each other as they stand.
  const shares = parts.filter((part) => part.endsWith("%")).map((part) => Number.parseInt(part, 10))
  const rises = (list: ReadonlyArray<number>) => list.every((value, index) => value >= (list[index - 1] ?? 0))
  const isWhole = targets.at(-1) === total && (parts.at(-1)?.endsWith("%") !== true || shares.at(-1) === 100)
  return rises(targets) && rises(shares) && isWhole ? targets : undefined
}

/** Sizes of the phases: canaries, then what each target adds; empty ones are left out. */
export const phaseSizes = (canary: number, targets: ReadonlyArray<number>): ReadonlyArray<number> => {
  const sizes: Array<number> = []
  let reached = 0
  for (const target of [canary, ...targets]) {
    if (target > reached) sizes.push(target - reached)
    reached = Math.max(reached, target)
  }
  return sizes
}

/** The group's devices, those who go first in front. */
const inOrder = (records: ReadonlyArray<DeviceRecord>, first: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const chosen: Array<DeviceRecord> = []
    for (const text of first) {
      const meant = records.filter((record) => isMeant(text, record))
      const [record] = meant
      if (record === undefined || meant.length > 1)
        return yield* usage(`--first ${text} does not name one device of the group`)
      if (!chosen.includes(record)) chosen.push(record)
    }
    return [...chosen, ...records.filter((record) => !chosen.includes(record))]
  })

const percentOf = (flag: Option.Option<string>) => {
  const percent = parsePercent(Option.getOrElse(flag, () => "100%"))
  return percent === undefined
    ? Effect.fail(usage("--success wants a share in percent, such as 95%"))
    : Effect.succeed(percent)
}

/** The phases that the flags ask for, and the bound of failures over all. */
export const planPhases = (records: ReadonlyArray<DeviceRecord>, flags: RolloutValues) =>
  Effect.gen(function* () {
    const total = records.length
    const percent = yield* percentOf(flags.success)
    const canary = Option.getOrElse(flags.canary, () => Math.max(1, flags.first.length))
    if (canary < 0 || canary > total)
      return yield* usage(`--canary must be between 0 and the group's ${total} devices`)
    const list = Option.getOrElse(flags.phases, () => "100%")
    const targets = parseTargets(list, total)
    if (targets === undefined) {
      return yield* usage(
        `--phases ${list} must rise and end with everybody, such as 10%,50%,100% (the group has ${total} devices)`
      )
    }
    const ordered = yield* inOrder(records, flags.first)
    let from = 0
    const phases = phaseSizes(canary, targets).map((size): PhaseDraft => {
      const part = ordered.slice(from, from + size)
      from += size
      const terms = { success_percent: percent, soak_ms: flags.soak, timeout_ms: flags.phaseTimeout }
      return { ...terms, records: part }
    })
    if (phases.length > Limits.rolloutPhases)
      return yield* usage(`A rollout has at most ${Limits.rolloutPhases} phases`)
    const allowed = phases.reduce((sum, phase) => sum + spare(phase), 0)
    const maximumFailures = Option.getOrElse(flags.maximumFailures, () => allowed)
    if (maximumFailures < 0) return yield* usage("--max-failures cannot be negative")
    return { phases, maximumFailures }
  })

/** How many of a phase may fail. */
const spare = ({ records, success_percent }: PhaseDraft): number =>
  records.length - requiredOf(records.length, success_percent)

/** Fails unless orders that live so long outlive the plan. */
export const requireLifetime = (phases: ReadonlyArray<PhaseDraft>, lifetimeMs: number) => {
  const neededMs = durationOf(phases)
  return neededMs <= lifetimeMs
    ? Effect.void
    : Effect.fail(
        failure(
          `The phases may take ${showDuration(neededMs)} with all time-outs and soaks, but the orders expire after ${showDuration(lifetimeMs)}. Give more --expires, or less --phase-timeout or --soak`
        )
      )
}

/** The phases as table rows. */
export const phaseRows = (phases: ReadonlyArray<PhaseDraft>): ReadonlyArray<ReadonlyArray<string>> =>
  phases.map((phase, index) => [
    `${index + 1}`,
    `${phase.records.length}`,
    `${requiredOf(phase.records.length, phase.success_percent)}`,
    index === phases.length - 1 ? "-" : showDuration(phase.soak_ms),
    showDuration(phase.timeout_ms),
    phase.records.map((record) => record.name).join(", ")
  ])

export const phaseTableHeader = ["PHASE", "DEVICES", "MUST SUCCEED", "SOAK", "TIME-OUT", "WHO"] as const

/**
 * Holding what a server shows of a rollout against the plan that was signed and the receipts that devices signed: who got
 * the package before its phase had come shows here, whatever the server says.
 *
 * @module
 */
import { Clock, Effect, Result } from "effect"
import { deviceRecord } from "../../adapters/operator/DeviceBook.ts"
import { ManagementClient } from "../../adapters/operator/ManagementClient.ts"
import { type RolloutRecord, rolloutRecord } from "../../adapters/operator/RolloutRecords.ts"
import { verifyPastRollout, verifyPastRolloutControl } from "../../adapters/operator/TrustStore.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import type {
  DeviceOutcome,
  PlannedDevice,
  RolloutDetail,
  RolloutId,
  RolloutPhase,
  RolloutPlan,
  RolloutView
} from "../../schemas/Rollout.ts"
import { requiredOf } from "../../schemas/RolloutJudgement.ts"
import { isFinal } from "../../schemas/WorkOrder.ts"
import { failure } from "./Failure.ts"
import { requireRoot } from "./Settings.ts"
import { type JudgedJob, judgeJob, judgeWithChain } from "./Verification.ts"

/** Clocks of devices differ by so much without meaning anything. */
const clockToleranceMs = 120_000

/** A device of a rollout, with what may be believed of its order. */
export interface JudgedDevice {
  readonly planned: PlannedDevice
  readonly name: string | null
  readonly phase: number
  /** By the device's verified receipt where there is one, else the server's word. */
  readonly outcome: DeviceOutcome
  /** Null while the server shows no such order. */
  readonly job: JudgedJob | null
}

export interface JudgedRollout {
  readonly view: RolloutView
  readonly plan: RolloutPlan
  readonly devices: ReadonlyArray<JudgedDevice>
  readonly alarms: ReadonlyArray<string>
  /**
   * The first phase, from 0, that the rollout cannot have left by the devices' own words and the operators': the server may
   * say that a later one has begun.
   */
  readonly reachable: number
}

/** The rollout as the server shows it now. */
export const currentRollout = (id: RolloutId) =>
  Effect.flatMap(ManagementClient, (client) =>
    client.call("look at the rollout", (api) => api.rollouts.show({ params: { id } }))
  )

/** What a device's own word says of a phase's order. */
export interface PhaseWitness {
  readonly name: string
  readonly phase: number
  readonly succeeded: boolean
  /** By the device's clock; null where it has not told. */
  readonly receivedAtMs: number | null
  readonly endedAtMs: number | null
}

/** When a phase had enough successes by the devices' own words, or null while it has not. */
const settledAtMs = (phase: RolloutPhase, witnesses: ReadonlyArray<PhaseWitness>): number | null => {
  const required = requiredOf(phase.devices.length, phase.success_percent)
  const ends = witnesses
    .filter(({ succeeded }) => succeeded)
    .map(({ endedAtMs }) => endedAtMs ?? 0)
    .sort((left, right) => left - right)
  if (ends.length < required) return null
  return required === 0 ? 0 : (ends[required - 1] as number)
}

/**
 * Who took an order before its phase had come. `waived` is the last phase that an operator went on from by a signed word:
 * up to it nothing is expected. Pure.
 */
export const earlyReleases = (
  plan: RolloutPlan,
  witnesses: ReadonlyArray<PhaseWitness>,
  waived: number,
  nowMs: number
): ReadonlyArray<string> =>
  plan.phases.flatMap((phase, index) => {
    const taken = witnesses.filter((witness) => witness.phase > index && witness.receivedAtMs !== null)
    if (index <= waived || taken.length === 0) return []
    const settled = settledAtMs(
      phase,
      witnesses.filter((witness) => witness.phase === index)
    )
    if (settled === null) {
      const who = taken.map(({ name }) => name).join(", ")
      return [
        `the server went on before phase ${index + 1} had succeeded: ${who} took an order of a later phase`
      ]
    }
    // A device whose clock is ahead of ours says nothing about when.
    if (settled > nowMs + clockToleranceMs) return []
    const dueMs = settled + phase.soak_ms - clockToleranceMs
    const early = taken.filter(({ receivedAtMs }) => (receivedAtMs as number) < dueMs)
    return early.length === 0
      ? []
      : [
          `${early.map(({ name }) => name).join(", ")} took the order before phase ${index + 1} had succeeded and soaked`
        ]
  })

/** The first phase that has not succeeded by the devices' own words, and that no operator went on from; the last at most. */
export const reachablePhase = (
  plan: RolloutPlan,
  witnesses: ReadonlyArray<PhaseWitness>,
  waived: number
): number => {
  const open = plan.phases.findIndex((phase, index) => {
    const own = witnesses.filter((witness) => witness.phase === index)
    return index > waived && settledAtMs(phase, own) === null
  })
  return open < 0 ? plan.phases.length - 1 : open
}

/** The plan an operator signed, checked against the one kept here. */
const provedPlan = (detail: RolloutDetail, id: RolloutId, record: RolloutRecord | undefined) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const verified = verifyPastRollout(engine, yield* requireRoot, detail.plan)
    if (Result.isFailure(verified))
      return yield* failure(
        `ALARM: the rollout ${id} is not signed by an operator of your root (${verified.failure.message})`
      )
    const { digest, document: plan } = verified.success
    if (plan.id !== id || detail.rollout.id !== id)
      return yield* failure(`ALARM: the server shows the rollout ${plan.id} in the place of ${id}`)
    if (record !== undefined && record.digest !== digest)
      return yield* failure(`ALARM: the server shows another plan of ${id} than the one that was signed here`)
    return plan
  })

/** What operators said to the rollout, as far as they signed it. */
const provedControls = (detail: RolloutDetail, id: RolloutId) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const trusted = yield* requireRoot
    return detail.controls.flatMap((envelope) => {
      const verified = verifyPastRolloutControl(engine, trusted, envelope)
      return Result.isSuccess(verified) && verified.success.document.rollout === id
        ? [verified.success.document]
        : []
    })
  })

/** The last phase that an operator's signed resume goes on from; -1 where there is none. */
const waivedPhase = (detail: RolloutDetail) =>
  Effect.map(provedControls(detail, detail.rollout.id), (controls) =>
    Math.max(-1, ...controls.filter(({ action }) => action === "resume").map(({ phase }) => phase))
  )

/** Whether an operator's signed word ended the rollout: what was not handed out of it has no receipt to wait for. */
export const isAborted = (id: RolloutId) =>
  Effect.flatMap(currentRollout(id), (detail) =>
    Effect.map(provedControls(detail, id), (controls) => controls.some(({ action }) => action === "abort"))
  )

const outcomeBy = (job: JudgedJob | null, shown: DeviceOutcome): DeviceOutcome => {
  if (job === null || job.receipt === null) return shown
  return job.receipt.document.state === "succeeded" ? "succeeded" : "failed"
}

const witnessOf = ({ job, name, phase, planned }: JudgedDevice): PhaseWitness => {
  const receipt = job?.receipt?.document ?? null
  // A device that refused what came too early has taken it all the same.
  return {
    name: name ?? planned.device,
    phase,
    succeeded: receipt?.state === "succeeded",
    receivedAtMs: receipt?.received_at_ms ?? null,
    endedAtMs: receipt?.ended_at_ms ?? null
  }
}

/** What the server shows of a device that cannot be, given the plan. */
const deviceAlarms = ({ job, name, planned }: JudgedDevice, plan: RolloutPlan): ReadonlyArray<string> => {
  if (job === null) return []
  const { order, view } = job
  const label = name ?? planned.device
  const alarms = [...job.alarms]
  if (view.device !== planned.device)
    alarms.push(`the server shows the order of ${label} as another device's`)
  if (order !== null && order.document.payload.digest !== plan.payload.digest)
    alarms.push(`the order of ${label} is for another package than the plan's`)
  if (view.receipt === null && isFinal(view.state) && view.state !== "removed")
    alarms.push(`the server calls ${label} ${view.state} and shows no receipt`)
  return alarms
}

/** Judges a rollout and every order of it; with `chains`, every device's chain of receipts too. */
export const judgeRollout = (detail: RolloutDetail, id: RolloutId, chains: boolean) =>
  Effect.gen(function* () {
    const client = yield* ManagementClient
    const nowMs = yield* Clock.currentTimeMillis
    const plan = yield* provedPlan(detail, id, yield* rolloutRecord(id))
    const { jobs } = yield* client.call("look at the rollout's orders", (api) =>
      api.rollouts.jobs({ params: { id } })
    )
    const devices = yield* Effect.forEach(
      plan.phases.flatMap((phase, index) => phase.devices.map((planned) => ({ planned, phase: index }))),
      ({ phase, planned }) =>
        Effect.gen(function* () {
          const view = jobs.find((job) => job.id === planned.order)
          const hasReceipt = view !== undefined && view.receipt !== null
          const judge = chains && hasReceipt ? judgeWithChain : judgeJob
          const job = view === undefined ? null : yield* judge(view)
          const shown = detail.devices.find((device) => device.order === planned.order)?.outcome ?? "absent"
          const name = (yield* deviceRecord(planned.device))?.name ?? null
          return { planned, name, phase, job, outcome: outcomeBy(job, shown) } satisfies JudgedDevice
        })
    )
    const waived = yield* waivedPhase(detail)
    const witnesses = devices.map(witnessOf)
    const early = earlyReleases(plan, witnesses, waived, nowMs)
    const alarms = [...early, ...devices.flatMap((device) => deviceAlarms(device, plan))]
    const reachable = reachablePhase(plan, witnesses, waived)
    return { view: detail.rollout, plan, devices, alarms, reachable } satisfies JudgedRollout
  })

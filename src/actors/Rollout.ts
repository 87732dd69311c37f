/**
 * The actor of one open rollout. It keeps nothing that the store does not: each look reads how the rollout stands, takes
 * the step that is due, and sets the clock for the next one. So a crash anywhere costs nothing but a look.
 */
import { Clock, Effect, Result } from "effect"
import { verifyRolloutControl } from "../crypto/Trust.ts"
import { type ActorContext, Behaviour } from "../kernel/index.ts"
import { CryptoEngine } from "../ports/CryptoEngine.ts"
import { FleetTrust } from "../ports/FleetTrust.ts"
import { type RolloutMember, type RolloutRow, RolloutStore } from "../ports/RolloutStore.ts"
import type { DsseEnvelope } from "../schemas/Dsse.ts"
import type { DeviceId } from "../schemas/Ids.ts"
import { Conflict, NotFound, Refused } from "../schemas/ManagementErrors.ts"
import { RolloutProtocol } from "../schemas/protocols/Rollout.ts"
import { isEnded, type RolloutControl, type RolloutId } from "../schemas/Rollout.ts"
import { nextStep, outcomeOf, type RolloutStep } from "../schemas/RolloutJudgement.ts"
import { makeAlarm } from "./Alarm.ts"
import { refusalOf, requireGoodRoot } from "./OperatorWord.ts"
import { DeviceKey } from "./ServerKeys.ts"
import { orUnavailable } from "./StoreTrouble.ts"

/** More steps than this never follow from one another; what is left is taken at the next look. */
const stepsAtOnce = 8
/** The longest an actor sleeps over a rollout; its clock may have leapt. */
const longestMs = 60_000
/** After a look that the store could not serve, or with devices that are still to be told. */
const soonMs = 1_000

const noRollout = new NotFound({ message: "there is no such rollout" })

const conflictTexts = {
  stale: ["stale_control", "a newer word to this rollout was heard already"],
  ended: ["rollout_ended", "the rollout has ended"],
  not_paused: ["not_paused", "the rollout is not paused"],
  full: ["too_many_controls", "so many words to one rollout are not kept: it can only be aborted"]
} as const

/** Devices that are to look for orders or stops; a word that does not reach one is said again. */
const makeWaking = (tell: (device: DeviceId) => Effect.Effect<boolean>) => {
  const unwoken = new Set<DeviceId>()
  return {
    add: (devices: ReadonlyArray<DeviceId>) => devices.forEach((device) => unwoken.add(device)),
    run: Effect.gen(function* () {
      for (const device of [...unwoken]) if (yield* tell(device)) unwoken.delete(device)
    }),
    isDone: () => unwoken.size === 0
  }
}

const announced: Partial<Record<RolloutStep["kind"], (row: RolloutRow, step: RolloutStep) => string>> = {
  release: ({ plan }, step) =>
    `phase ${step.kind === "release" ? step.phase + 1 : 0} of ${plan.phases.length} begins`,
  settle: () => "the phase has succeeded",
  pause: (_row, step) => `paused: ${step.kind === "pause" ? step.reason : ""}`,
  end: (_row, step) => `ended: ${step.kind === "end" ? step.state : ""}`
}

/** Takes every step that is due; gives the rollout as it then is, and until when nothing is to be done. */
const advance = (id: RolloutId, touched: (devices: ReadonlyArray<DeviceId>) => void) =>
  Effect.gen(function* () {
    const store = yield* RolloutStore
    for (let taken = 0; taken < stepsAtOnce; taken++) {
      const row = yield* store.rollout(id)
      if (row === null) return { row, untilMs: null }
      const nowMs = yield* Clock.currentTimeMillis
      const step = nextStep(row, yield* store.rolloutTally(id), nowMs)
      if (step.kind === "wait") return { row, untilMs: step.untilMs }
      const devices = yield* store.moveRollout(id, row.version, step, nowMs)
      if (devices === null) continue
      touched(devices)
      yield* Effect.logInfo(announced[step.kind]?.(row, step) ?? step.kind).pipe(
        Effect.annotateLogs({ rollout: id })
      )
    }
    return { row: yield* store.rollout(id), untilMs: yield* Clock.currentTimeMillis }
  })

const isExcusable = (row: RolloutRow, nowMs: number) => (member: RolloutMember) => {
  const outcome = outcomeOf(row, member, nowMs)
  return !member.excused && (outcome === "failed" || outcome === "missing")
}

/** Hears an operator's word; gives the devices that something changed for. */
const makeControl = (id: RolloutId) =>
  Effect.gen(function* () {
    const store = yield* RolloutStore
    const engine = yield* CryptoEngine
    const trust = yield* FleetTrust
    const verified = Effect.fnUntraced(function* (envelope: DsseEnvelope) {
      const root = trust.current()
      if (root === null)
        return yield* new Conflict({ code: "no_root", message: "the server has no trust root yet" })
      const opened = verifyRolloutControl(engine, root.root, envelope)
      if (Result.isFailure(opened)) return yield* refusalOf(opened.failure, envelope, root)
      const control = opened.success.document
      if (control.rollout !== id)
        return yield* new Refused({ message: `the document is for ${control.rollout}` })
      // Stopping is always allowed to those who may order; what begins work takes a root that is still good.
      if (control.action === "resume") yield* requireGoodRoot(root)
      return control
    })
    /** Whom a resume goes on without. */
    const excusedBy = Effect.fnUntraced(function* (control: RolloutControl, nowMs: number) {
      const row = control.action === "resume" ? yield* store.rollout(id) : null
      if (row === null) return []
      if (row.phase !== control.phase) {
        return yield* new Refused({
          message: `the operator saw phase ${control.phase + 1}, the rollout is in phase ${row.phase + 1}`
        })
      }
      return (yield* store.rolloutMembers(id)).filter(isExcusable(row, nowMs)).map((member) => member.order)
    })
    return Effect.fnUntraced(function* (envelope: DsseEnvelope, actor: string) {
      const control = yield* verified(envelope)
      const nowMs = yield* Clock.currentTimeMillis
      const excused = yield* excusedBy(control, nowMs)
      const found = yield* store.controlRollout(control, envelope, excused, actor, nowMs)
      if (found.outcome === "done") return found.devices
      if (found.outcome === "same") return []
      if (found.outcome === "unknown") return yield* noRollout
      const [code, message] = conflictTexts[found.outcome]
      return yield* new Conflict({ code, message })
    })
  })

/** The orders of a phase that may wait for their device: told again in a new life, since the old one may not have. */
const released = (id: RolloutId) =>
  Effect.gen(function* () {
    const store = yield* RolloutStore
    const row = yield* store.rollout(id)
    if (row?.state !== "running") return []
    const members = yield* store.rolloutMembers(id)
    return members
      .filter(({ phase, state }) => phase <= row.phase && state === "queued")
      .map(({ device }) => device)
  })

const tellVia = (context: Pick<ActorContext<never>, "refOf">) => (device: DeviceId) =>
  context
    .refOf(DeviceKey, device)
    .tell("Changed")
    .pipe(
      Effect.as(true),
      Effect.catch((error) => Effect.as(Effect.logDebug(error.message), false))
    )

export const rollout = (id: RolloutId) =>
  Behaviour.make(RolloutProtocol, (context) =>
    Effect.gen(function* () {
      const services = yield* Effect.context<RolloutStore>()
      const control = yield* makeControl(id)
      const waking = makeWaking(tellVia(context))
      const alarm = yield* makeAlarm(context.self.tell("Look"))
      let isFirst = true

      const look = Effect.gen(function* () {
        if (isFirst) waking.add(yield* released(id))
        isFirst = false
        const { row, untilMs } = yield* advance(id, waking.add)
        yield* waking.run
        if (row === null || (isEnded(row.state) && waking.isDone())) return yield* context.stopSelf
        const leftMs = untilMs === null ? longestMs : untilMs - (yield* Clock.currentTimeMillis)
        yield* alarm.ringIn(waking.isDone() ? Math.min(leftMs, longestMs) : soonMs)
      }).pipe(
        Effect.catch((error) =>
          Effect.andThen(
            Effect.logError(`the rollout cannot go on now: ${error.reason}`),
            alarm.ringIn(soonMs)
          )
        ),
        Effect.provideContext(services)
      )

      return context.handlers({
        Look: () => look,
        Control: ({ payload }) =>
          control(payload.envelope, payload.actor).pipe(
            Effect.map(waking.add),
            orUnavailable,
            Effect.andThen(look)
          )
      })
    })
  )

/**
 * The trust keeper: gets the root and keeps it, asks the operators to let this device in, and believes only what they
 * signed. It hands the server link its trust and the main loop its view.
 */
import { Effect, Exit, Redacted, Result } from "effect"
import type { RpcGroup } from "effect/rpc"
import { claimCode } from "../crypto/IdentityKeys.ts"
import { invitationId } from "../crypto/Invitations.ts"
import { type ActorContext, Behaviour } from "../kernel/index.ts"
import { AgentTrust } from "../ports/AgentTrust.ts"
import { CryptoEngine } from "../ports/CryptoEngine.ts"
import { DeviceClock } from "../ports/DeviceClock.ts"
import { Identity } from "../ports/Identity.ts"
import { Ledger, type LedgerError } from "../ports/Ledger.ts"
import { ServerLink } from "../ports/ServerLink.ts"
import type { DsseEnvelope } from "../schemas/Dsse.ts"
import type { DeviceId } from "../schemas/Ids.ts"
import type { OnionClientKey } from "../schemas/Onion.ts"
import {
  type HeldRoot,
  type LedgerObjection,
  TrustKeeperProtocol,
  type TrustPhase,
  type TrustStep,
  type TrustView
} from "../schemas/protocols/TrustKeeper.ts"
import { makeAlarm, monotonicMs } from "./Alarm.ts"
import { ConnectivityKey, MainLoopKey, WatchdogKey } from "./ClientKeys.ts"
import { type Delays, delayAfter } from "./Delays.ts"
import { makeOnionStanding } from "./OnionStanding.ts"
import {
  agentStandingOf,
  fitsPin,
  type HeldAdmission,
  type HeldObjection,
  judgeDecision,
  newerAdmission,
  objectionOf,
  phaseOf,
  restoreAdmission,
  restoreObjection,
  restoreRoot,
  type Self,
  storeRoot
} from "./TrustState.ts"
import { type TrustOptions, trustStep } from "./TrustSteps.ts"

export type { TrustOptions } from "./TrustSteps.ts"

/** Between attempts to reach the server. */
const failureDelays: Delays = { firstMs: 1_000, factor: 2, maximumMs: 60_000 }
/** Between questions whether an operator has decided. */
const pendingDelays: Delays = { firstMs: 500, factor: 1.5, maximumMs: 15_000 }
/** After a no, and while an expired root waits for its successor. */
const patientMs = 300_000
/** How often an accepted device looks for a newer root on its own. */
const renewMs = 6 * 3_600_000
/** How often the claim code is shown. */
const showCodeEveryMs = 60_000
/** A device with an invitation shows its claim code when it has asked so often in vain. */
const showCodeAfterAsking = 40
/** A step is some requests, each with its own time limit; the watchdog has more patience than all of them. */
const stepWithinMs = 600_000

type Context = ActorContext<RpcGroup.Rpcs<typeof TrustKeeperProtocol>>

/** The keeper's state in one life; what must survive is in the ledger. */
interface State {
  held: HeldRoot | null
  admission: HeldAdmission | null
  objection: HeldObjection | null
  /** Whether a poll was answered in this life. */
  heard: boolean
  /** Newest root version an answer spoke of. */
  announced: number
  stepping: boolean
  /** The server asked for enrolment, whatever we believe. */
  enrol: boolean
  failures: number
  asked: number
  codeShownAt: number | null
  detail: string
}

/** What cannot be stored is not believed either: it comes again with a later answer. */
const notStored = <A>(effect: Effect.Effect<A, LedgerError>): Effect.Effect<A | void> =>
  Effect.catch(effect, (error) =>
    Effect.logError(`the ledger does not take what the server told: ${error.reason}`)
  )

/** What the ledger kept, checked again; what is damaged is as if it had never come. */
const restore = (self: Self, { invitation }: TrustOptions) =>
  Effect.gen(function* () {
    const ledger = yield* Ledger
    const engine = yield* CryptoEngine
    const rootText = yield* ledger.note("roots")
    const root = rootText === null ? null : restoreRoot(engine, rootText)
    if (root !== null && Result.isFailure(root)) yield* Effect.logError(root.failure)
    const kept = root !== null && Result.isSuccess(root) ? root.success : null
    const held = kept !== null && fitsPin(kept, invitation) ? kept : null
    if (held !== kept) {
      yield* Effect.logError(
        "the invitation names another trust root than this device holds: what it believed until now is dropped"
      )
      // Decisions are kept without a second look at their signatures, so this one must not outlive its root.
      yield* ledger.setNote("admission", "")
    }
    const objectionText = yield* ledger.note("objection")
    const objection = objectionText === null ? null : restoreObjection(objectionText)
    const admissionText = yield* ledger.note("admission")
    if (held === null || admissionText === null || admissionText === "")
      return { held, objection, admission: null }
    const admission = restoreAdmission(engine, held, self, admissionText)
    if (Result.isSuccess(admission)) return { held, objection, admission: admission.success }
    yield* Effect.logWarning(`the stored decision about this device is of no use: ${admission.failure}`)
    return { held, objection, admission: null }
  })

/** The keeper of one life: its state and what it works with. */
const makeKeeper = Effect.fnUntraced(function* (
  context: Context,
  options: TrustOptions,
  longestPauseMs: number
) {
  const ledger = yield* Ledger
  const engine = yield* CryptoEngine
  const identity = yield* Identity
  const link = yield* ServerLink
  const clock = yield* DeviceClock
  const agent = yield* AgentTrust
  const self: Self = {
    device: identity.id as DeviceId,
    signingKey: identity.signingKey,
    recipient: identity.recipient,
    incarnation: ledger.incarnation
  }
  const restored = yield* restore(self, options)
  const state: State = {
    ...restored,
    heard: false,
    announced: restored.held?.root.version ?? 0,
    stepping: false,
    enrol: false,
    failures: 0,
    asked: 0,
    codeShownAt: null,
    detail: ""
  }
  const onion = yield* makeOnionStanding
  if (state.held !== null) {
    yield* link.trust({ root: state.held.root, server: state.held.server })
    yield* onion.follow(state.held)
  }
  const phase = (): TrustPhase => phaseOf(state.admission, self.incarnation)
  return { context, options, longestPauseMs, ledger, engine, clock, agent, onion, self, state, phase }
})

type Keeper = Effect.Success<ReturnType<typeof makeKeeper>>

const codeOf = ({ engine, phase, self, state }: Keeper): string | null =>
  state.held === null || phase() === "accepted"
    ? null
    : claimCode(engine, {
        device: self.device,
        rootDigest: state.held.firstDigest,
        server: state.held.server
      })

const viewOf = (keeper: Keeper, onionHeld: OnionClientKey | null): TrustView => ({
  phase: keeper.phase(),
  held: keeper.state.held,
  admissionSequence: keeper.state.admission?.admission.sequence ?? 0,
  name: keeper.state.admission?.admission.name ?? null,
  claimCode: codeOf(keeper),
  objection: objectionOf(keeper.state.objection, keeper.state.admission),
  doubtful: keeper.state.objection?.mark ?? null,
  onionHeld,
  heard: keeper.state.heard,
  detail: keeper.state.detail
})

const view = (keeper: Keeper) => Effect.map(keeper.onion.held, (held) => viewOf(keeper, held))

/** Lets the device's agent know where it stands. */
const tellAgent = ({ agent, clock, self, state }: Keeper) =>
  Effect.map(clock.nowMs, (nowMs) => agent.set(agentStandingOf(state.held, state.admission, self, nowMs)))

const takeRoot = Effect.fnUntraced(function* ({ ledger, onion, state }: Keeper, held: HeldRoot) {
  if (state.held !== null && held.root.version <= state.held.root.version) return
  yield* ledger.setNote("roots", storeRoot(held))
  state.held = held
  yield* onion.follow(held)
  yield* Effect.logInfo(`trust root ${held.root.version} taken in`)
}, notStored)

const takeAdmission = Effect.fnUntraced(function* (keeper: Keeper, envelope: DsseEnvelope) {
  const { clock, engine, ledger, options, self, state } = keeper
  if (state.held === null) return
  const invitation =
    options.invitation === null ? null : invitationId(engine, Redacted.value(options.invitation.secret))
  const judgement = judgeDecision(engine, state.held, self, envelope, {
    invitation,
    nowMs: yield* clock.nowMs
  })
  const came = Result.flatMap(judgement, (judged) => newerAdmission(engine, state.admission, judged))
  if (Result.isFailure(came)) {
    state.detail = `a decision about this device is refused: ${came.failure}`
    return yield* Effect.logWarning(state.detail)
  }
  if (came.success === state.admission) return
  const { admission } = came.success
  yield* ledger.setNote("admission", JSON.stringify(came.success.envelope))
  yield* ledger.setNote("device_name", JSON.stringify(admission.name))
  state.admission = came.success
  yield* Effect.logInfo(`an operator's decision: ${admission.decision}`).pipe(
    Effect.annotateLogs({ name: admission.name, sequence: admission.sequence })
  )
}, notStored)

/** What the server holds against the ledger counts from now on, and is kept: no restart may make it forgotten. */
const takeObjection = Effect.fnUntraced(function* ({ ledger, state }: Keeper, objection: LedgerObjection) {
  if (objectionOf(state.objection, state.admission) === objection) return
  yield* Effect.logError(`the server objects to this device: ${objection}. An operator must accept it again`)
  const sequence = state.admission?.admission.sequence ?? 0
  state.objection = { objection, sequence, mark: yield* ledger.highWater }
  yield* ledger.setNote("objection", JSON.stringify(state.objection))
}, notStored)

const showCode = Effect.fnUntraced(function* (keeper: Keeper) {
  const { options, phase, self, state } = keeper
  const code = codeOf(keeper)
  // With an invitation nobody needs it, unless its maker has forgotten the secret.
  const isNeeded = options.invitation === null || state.asked >= showCodeAfterAsking
  if (code === null || !isNeeded || phase() !== "not_enrolled") return
  const nowAt = yield* monotonicMs
  if (state.codeShownAt !== null && nowAt - state.codeShownAt < showCodeEveryMs) return
  state.codeShownAt = nowAt
  yield* Effect.logInfo(
    `waiting to be accepted; compare the claim code ${code} with the one \`postern devices show ${self.device}\` prints`
  )
})

/** How long to wait for the next step. */
const pauseOf = Effect.fnUntraced(function* (keeper: Keeper) {
  const pauseMs = yield* usualPause(keeper)
  // Until it is accepted nobody else asks: the configured bound on silence is the keeper's to hold.
  return keeper.phase() === "accepted" ? pauseMs : Math.min(pauseMs, keeper.longestPauseMs)
})

const usualPause = Effect.fnUntraced(function* ({ phase, state }: Keeper) {
  const clock = yield* DeviceClock
  if (state.failures > 0) return yield* delayAfter(failureDelays, state.failures)
  if (phase() === "not_enrolled" || state.enrol) return yield* delayAfter(pendingDelays, state.asked)
  if (phase() !== "accepted") return patientMs
  const expired = state.held !== null && state.held.root.expires_at_ms <= (yield* clock.nowMs)
  return expired ? patientMs : renewMs
})

const startStep = ({ context, options, phase, state }: Keeper) =>
  Effect.suspend(() => {
    if (state.stepping) return Effect.void
    state.stepping = true
    const before = { held: state.held, phase: phase(), enrol: state.enrol }
    return context.startTask(trustStep(options, before), (exit) => [
      "StepEnded",
      Exit.isSuccess(exit) ? exit.value : brokenStep
    ])
  })

const brokenStep: TrustStep = {
  held: null,
  admission: null,
  onionShared: null,
  status: null,
  failed: true,
  reached: false,
  code: null,
  detail: "the step broke off"
}

/** Takes in what a step brought and says when the next is due. */
const stepEnded = Effect.fnUntraced(function* (keeper: Keeper, step: TrustStep) {
  const { state } = keeper
  state.stepping = false
  const news = step.detail !== state.detail
  state.detail = step.detail
  if (step.held !== null) {
    yield* takeRoot(keeper, step.held)
    state.announced = Math.min(state.announced, state.held?.root.version ?? 0)
  }
  if (step.admission !== null) yield* takeAdmission(keeper, step.admission)
  if (step.onionShared !== null) yield* keeper.onion.take(step.onionShared)
  if (step.failed) {
    state.failures++
    if (news)
      yield* Effect.logInfo(
        `${keeper.state.held === null ? "no trust yet" : "no word of trust"}: ${step.detail}`
      )
  } else {
    state.failures = 0
    state.asked = step.status === null ? 0 : state.asked + 1
    // The server holds the same decision as we do: there is nothing to enrol for.
    if (keeper.phase() === "accepted" && step.status === "accepted") state.enrol = false
  }
  yield* showCode(keeper)
})

/**
 * The trust keeper's behaviour.
 *
 * @param longestPauseMs the longest time between two questions of a device that is not accepted
 */
export const trustKeeper = (options: TrustOptions, longestPauseMs: number) =>
  Behaviour.make(TrustKeeperProtocol, (context) =>
    Effect.gen(function* () {
      const keeper = yield* makeKeeper(context, options, longestPauseMs)
      const { state } = keeper
      const watchdog = context.ref(WatchdogKey)
      const mainLoop = context.ref(MainLoopKey)
      const connectivity = context.ref(ConnectivityKey)
      const alarm = yield* makeAlarm(context.self.tell("Due"))
      const beat = (withinMs: number, done = false) =>
        Effect.andThen(
          context.beat,
          Effect.ignore(watchdog.tell("Beat", { loop: "trust-keeper", withinMs, done }))
        )
      const waitFor = (delayMs: number, done = true) =>
        Effect.andThen(beat(delayMs + stepWithinMs, done), alarm.ringIn(delayMs))
      const mustEnrol = (detail: string) =>
        Effect.suspend(() => {
          state.detail = detail
          if (state.enrol) return Effect.void
          state.enrol = true
          state.asked = 0
          return alarm.ringIn(0)
        })
      const afterRefusal = (isAll: boolean) =>
        isAll ? mustEnrol("the server's onion service does not know this device's key") : Effect.void
      yield* tellAgent(keeper)
      yield* waitFor(0, false)
      return context.handlers({
        View: () => view(keeper),
        Heard: Effect.fnUntraced(function* ({ payload }) {
          const before = keeper.phase()
          if (payload.admission !== null) yield* takeAdmission(keeper, payload.admission)
          if (payload.objection !== null) yield* takeObjection(keeper, payload.objection)
          if (payload.onionShared !== null) yield* keeper.onion.take(payload.onionShared)
          keeper.onion.admitted()
          state.heard = true
          yield* tellAgent(keeper)
          if (keeper.phase() !== before) yield* waitFor(yield* pauseOf(keeper))
          if (payload.rootVersion !== null && payload.rootVersion > state.announced) {
            state.announced = payload.rootVersion
            yield* alarm.ringIn(0)
          }
          return yield* view(keeper)
        }),
        Refused: ({ payload }) => mustEnrol(`the server refuses this device: ${payload.code}`),
        NotAuthorised: () => Effect.flatMap(keeper.onion.refused, afterRefusal),
        OnionUnexplained: () => Effect.flatMap(keeper.onion.unexplained, afterRefusal),
        StepEnded: Effect.fnUntraced(function* ({ payload }) {
          const before = { phase: keeper.phase(), held: state.held }
          yield* stepEnded(keeper, payload)
          yield* tellAgent(keeper)
          const after = { phase: keeper.phase(), held: state.held }
          // Of an accepted device the main loop tells, which asks far more often.
          if (after.phase !== "accepted") {
            const { code, detail, reached } = payload
            yield* Effect.ignore(connectivity.tell("Told", { reached, detail, code }))
          }
          if (before.phase !== after.phase || before.held !== after.held)
            yield* Effect.ignore(mainLoop.tell("Nudge"))
          yield* waitFor(yield* pauseOf(keeper))
        }),
        Due: () => Effect.andThen(beat(stepWithinMs), startStep(keeper)),
        Restart: () => context.stopSelf
      })
    })
  )

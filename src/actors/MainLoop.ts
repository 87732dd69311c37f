/**
 * The main loop: turn after turn, for as long as the program runs. A turn is a task, so that the loop answers at once
 * while a poll is held open; it waits for no job and no submission.
 */
import { Cause, Deferred, Effect, Exit } from "effect"
import { base32Token } from "../crypto/Unguessable.ts"
import { type ActorContext, Behaviour } from "../kernel/index.ts"
import { DeviceClock } from "../ports/DeviceClock.ts"
import { Entropy } from "../ports/Entropy.ts"
import type { Condition } from "../schemas/Conditions.ts"
import { LifeId } from "../schemas/Ids.ts"
import { Limits } from "../schemas/Limits.ts"
import { MainLoopProtocol, type MainLoopStatus, type TurnEnd } from "../schemas/protocols/MainLoop.ts"
import { blockedTexts } from "../schemas/Refusals.ts"
import type { LaneName } from "../schemas/WorkOrder.ts"
import { makeAlarm, monotonicMs } from "./Alarm.ts"
import {
  ConnectivityKey,
  JailGuardKey,
  LaneKeys,
  NotaryKey,
  OutboxKey,
  TrustKeeperKey,
  WatchdogKey
} from "./ClientKeys.ts"
import { delayAfter, jittered, spreadLater } from "./Delays.ts"
import { gatherConditions } from "./DeviceConditions.ts"
import { type TurnEnvironment, type TurnOptions, type TurnState, turn } from "./MainLoopTurn.ts"

export interface MainLoopOptions extends TurnOptions {
  readonly lanes: ReadonlyArray<LaneName>
  /** Bounds on the sleep the server may ask for. */
  readonly sleepMinimumMs: number
  readonly sleepMaximumMs: number
  /** What the start found to be weaker than it should be. */
  readonly standing: ReadonlyArray<Condition>
  /** Whether this program keeps an agent. */
  readonly hasAgent: boolean
}

/** A name of a life that nobody guesses and no other life has. */
const lifeBits = 128
/** Without trust the keeper wakes the loop; this is for the case that its message was lost. */
const waitingMs = 10_000
/** Requests of one turn beside the poll, each with its own time limit. */
const turnWithinMs = 300_000
/** A nudge is heeded so long after a turn at the earliest, so that a row of short jobs does not become a row of polls. */
const nudgeMs = Limits.pollSleepMinimumMs
/** Sleeps above this are spread by chance; shorter ones keep their promise of a quick answer. */
const spreadAboveMs = 5_000

interface State {
  readonly turn: TurnState
  running: boolean
  again: boolean
  draining: boolean
  /** When the last turn ended. */
  endedAt: number
  failures: number
  /** Turns in a row that broke off before they tried to reach the server. */
  broken: number
  status: MainLoopStatus
}

const freshState = (life: LifeId): State => ({
  turn: {
    refusals: { count: 0, sinceAt: 0 },
    abort: Deferred.makeUnsafe<void>(),
    abortable: false,
    prunedAtMs: 0,
    life,
    turns: 0
  },
  running: false,
  again: false,
  draining: false,
  endedAt: Number.NEGATIVE_INFINITY,
  failures: 0,
  broken: 0,
  status: {
    turns: 0,
    polls: 0,
    again: false,
    blocked: null,
    lastPollAtMs: null,
    failures: 0,
    allFailures: 0,
    detail: "",
    degraded: []
  }
})

/** After so many turns in a row that broke off the next one comes as soon as after the first. */
const soonAgain = 3

/** How long to sleep after a turn: what the server asked for within our bounds, longer and longer after failures. */
const sleepAfter = Effect.fnUntraced(function* (ended: TurnEnd, state: State, options: MainLoopOptions) {
  const { sleepMaximumMs, sleepMinimumMs } = options
  if (ended.again) return 0
  if (ended.kind === "waiting") return waitingMs
  if (ended.kind === "failed") {
    const delayMs = yield* delayAfter(
      { firstMs: sleepMinimumMs, factor: 2, maximumMs: sleepMaximumMs },
      // One that broke off asked nobody: it must not make the silence twice as long, nor must a few in a row.
      state.broken > 0 ? state.broken - soonAgain : state.failures
    )
    // Everybody was told the same time: whoever is put off comes back at a time of its own.
    const patienceMs = yield* spreadLater(ended.sleepMs ?? 0)
    return Math.min(Math.max(delayMs, patienceMs), sleepMaximumMs)
  }
  const asked = Math.min(Math.max(ended.sleepMs ?? 0, sleepMinimumMs), sleepMaximumMs)
  return asked > spreadAboveMs ? Math.max(yield* jittered(asked), sleepMinimumMs) : asked
})

/** What the turn changes in the loop's own account, and a line in the log where something is new. */
const account = Effect.fnUntraced(function* (state: State, ended: TurnEnd) {
  const clock = yield* DeviceClock
  const before = state.status
  const polled = ended.kind === "polled"
  state.endedAt = yield* monotonicMs
  state.failures = ended.kind === "failed" ? state.failures + 1 : 0
  state.broken = ended.kind === "failed" && ended.reached === null ? state.broken + 1 : 0
  state.status = {
    turns: before.turns + 1,
    polls: before.polls + (polled ? 1 : 0),
    again: ended.again,
    blocked: ended.blocked,
    lastPollAtMs: polled ? yield* clock.nowMs : before.lastPollAtMs,
    failures: state.failures,
    allFailures: before.allFailures + (ended.kind === "failed" ? 1 : 0),
    detail: ended.detail,
    degraded: ended.degraded
  }
  if (ended.kind === "failed" && ended.detail !== before.detail)
    yield* Effect.logWarning(`a turn failed: ${ended.detail}`)
  if (polled && before.failures > 0) yield* Effect.logInfo("the server is reached again")
  if (ended.blocked !== before.blocked && ended.blocked !== null) {
    yield* Effect.logInfo(`no orders are taken: ${blockedTexts[ended.blocked]}`)
  }
  return polled && (before.failures > 0 || before.polls === 0)
})

/** How long a nudge that comes now has to wait. */
const untilNudged = ({ endedAt }: State): Effect.Effect<number> =>
  Effect.map(monotonicMs, (nowAt) => Math.max(endedAt + nudgeMs - nowAt, 0))

/** Whom its turns talk to. */
const environmentOf = (
  context: Pick<ActorContext<never>, "ref">,
  options: MainLoopOptions
): TurnEnvironment => ({
  longPollMs: options.longPollMs,
  takesOrders: options.takesOrders,
  diskReserveBytes: options.diskReserveBytes,
  conditions: gatherConditions(context, options.standing, options.hasAgent),
  trust: context.ref(TrustKeeperKey),
  jailGuard: context.ref(JailGuardKey),
  notary: context.ref(NotaryKey),
  outbox: context.ref(OutboxKey),
  lanes: new Map(options.lanes.map((name) => [name, context.ref(LaneKeys[name])]))
})

/** The main loop's behaviour. */
export const mainLoop = (options: MainLoopOptions) =>
  Behaviour.make(MainLoopProtocol, (context) =>
    Effect.gen(function* () {
      const entropy = yield* Entropy
      const state = freshState(LifeId.make(yield* base32Token(entropy, lifeBits)))
      const watchdog = context.ref(WatchdogKey)
      const connectivity = context.ref(ConnectivityKey)
      const environment = environmentOf(context, options)
      const { outbox } = environment
      const alarm = yield* makeAlarm(context.self.tell("Due"))
      const beat = (withinMs: number, done = false) =>
        Effect.andThen(
          context.beat,
          Effect.ignore(watchdog.tell("Beat", { loop: "main-loop", withinMs, done }))
        )
      const beginTurn = Effect.suspend(() => {
        if (state.running || state.draining) return Effect.void
        state.running = true
        state.again = false
        state.turn.abort = Deferred.makeUnsafe<void>()
        return Effect.andThen(
          beat(options.longPollMs + turnWithinMs),
          context.startTask(turn(state.turn, environment), (exit) => [
            "TurnEnded",
            Exit.isSuccess(exit) ? exit.value : brokenTurn(exit.cause)
          ])
        )
      })
      const nudge = Effect.suspend(() => {
        if (!state.running)
          return state.draining ? Effect.void : Effect.flatMap(untilNudged(state), alarm.ringIn)
        state.again = true
        return state.turn.abortable
          ? Effect.asVoid(Deferred.succeed(state.turn.abort, undefined))
          : Effect.void
      })
      yield* beat(turnWithinMs)
      yield* alarm.ringIn(0)
      return context.handlers({
        Due: () => beginTurn,
        Nudge: () => nudge,
        Drain: () =>
          Effect.suspend(() => {
            state.draining = true
            state.status = { ...state.status, blocked: "stopping" }
            return Effect.andThen(alarm.silence, Effect.asVoid(Deferred.succeed(state.turn.abort, undefined)))
          }),
        Status: () => Effect.sync(() => state.status),
        TurnEnded: Effect.fnUntraced(function* ({ payload }) {
          state.running = false
          const reachedAgain = yield* account(state, payload)
          const { code, detail, reached } = payload
          if (reached !== null) yield* Effect.ignore(connectivity.tell("Told", { reached, detail, code }))
          if (reachedAgain) {
            yield* Effect.ignore(outbox.tell("Reached"))
            for (const lane of environment.lanes.values()) yield* Effect.ignore(lane.tell("Reached"))
          }
          const nudged = state.again && payload.kind !== "failed"
          const sleepMs = nudged ? nudgeMs : yield* sleepAfter(payload, state, options)
          yield* beat(sleepMs + turnWithinMs, true)
          yield* alarm.ringIn(sleepMs)
        }),
        Restart: () => context.stopSelf
      })
    })
  )

/** A turn that ended by a defect is a failed one: the next begins afresh. */
const brokenTurn = (cause: Cause.Cause<unknown>): TurnEnd => ({
  kind: "failed",
  blocked: null,
  sleepMs: null,
  accepted: 0,
  refused: 0,
  again: false,
  reached: null,
  code: null,
  degraded: [],
  detail: `the turn broke off: ${Cause.pretty(cause).split("\n")[0] ?? ""}`
})

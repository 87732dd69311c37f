/**
 * A lane: takes the accepted orders of its kind from the ledger, lowest counter first, one at a time. The work is a task
 * of the life's Scope, so that a cancel, a stop or a question is answered at once, however long a job runs.
 */
import { Cause, Deferred, Effect, Exit } from "effect"
import type { RpcGroup } from "effect/rpc"
import { type ActorContext, Behaviour } from "../kernel/index.ts"
import { Ledger, type LedgerOrder } from "../ports/Ledger.ts"
import type { OrderId } from "../schemas/Ids.ts"
import { LaneProtocol, type LaneStatus, type StopReason, type WorkEnd } from "../schemas/protocols/Lane.ts"
import type { RefusalCode } from "../schemas/Refusals.ts"
import type { LaneName, OrderProgress } from "../schemas/WorkOrder.ts"
import { type Alarm, makeAlarm, monotonicMs } from "./Alarm.ts"
import { JailGuardKey, MainLoopKey, NotaryKey, OutboxKey, TrustKeeperKey } from "./ClientKeys.ts"
import { type Delays, delayAfter } from "./Delays.ts"
import type { LaneEnvironment } from "./LaneChecks.ts"
import { giveUp, type WorkError, work } from "./LaneWork.ts"
import { progressRhythm } from "./Progress.ts"

/** What a lane takes from the device's configuration. */
export type LaneOptions = Pick<LaneEnvironment, "allowance" | "download" | "diskReserveBytes">

/** Between attempts that failed for a reason of the device's own, and how many there are. */
const failureDelays: Delays = { firstMs: 1_000, factor: 2, maximumMs: 60_000 }
const failuresAllowed = 10
/** An order put off again and again waits twice as long each time, up to this. */
const longestPauseMs = 60_000
/** When the ledger could not be read. */
const ledgerRetryMs = 5_000

type Context = ActorContext<RpcGroup.Rpcs<typeof LaneProtocol>>

/** An order put off. */
interface Pause {
  readonly untilAt: number
  readonly detail: string
  readonly trouble: RefusalCode | null
  readonly failures: number
  /** How often in a row it was put off for what is not the device's fault. */
  readonly repeats: number
}

interface State {
  current: { readonly order: OrderId; readonly stop: Deferred.Deferred<StopReason> } | null
  progress: OrderProgress | null
  readonly pauses: Map<OrderId, Pause>
  /** Orders the server asked to stop before they were in hand; it asks again with every poll. */
  readonly stops: Set<OrderId>
  draining: boolean
}

const broken = (order: OrderId, cause: Cause.Cause<WorkError>): WorkEnd => {
  const error = Cause.squash(cause)
  const storage =
    typeof error === "object" && error !== null && "_tag" in error && error._tag === "StorageError"
  return {
    order,
    kind: "failed",
    pauseMs: 0,
    trouble: storage ? "disk_low" : null,
    detail: error instanceof Error ? `${error.name}: ${error.message}` : String(error)
  }
}

const makeEnvironment = (context: Context, options: LaneOptions, state: State): LaneEnvironment => {
  const outbox = context.ref(OutboxKey)
  const due = progressRhythm()
  return {
    ...options,
    notary: context.ref(NotaryKey),
    jailGuard: context.ref(JailGuardKey),
    trust: context.ref(TrustKeeperKey),
    outputStored: Effect.ignore(outbox.tell("Wake")),
    report: (progress) =>
      Effect.suspend(() => {
        if (state.current?.order === progress.order) state.progress = progress
        return due(progress) ? Effect.ignore(outbox.tell("Progress", progress)) : Effect.void
      })
  }
}

/** Takes up an order: its work is a task, whose end comes back as a message. */
const takeUp = (context: Context, state: State, environment: LaneEnvironment, row: LedgerOrder) => {
  const order = row.order.id
  const stop = Deferred.makeUnsafe<StopReason>()
  const pause = state.pauses.get(order)
  state.current = { order, stop }
  if (state.stops.delete(order)) Deferred.doneUnsafe(stop, Effect.succeed("stopped_by_server"))
  const task =
    pause !== undefined && pause.failures >= failuresAllowed
      ? giveUp(row, environment, pause.trouble, pause.detail)
      : work(row, stop, environment, pause?.trouble ?? null)
  return context.startTask(Effect.annotateLogs(task, { order }), (exit) => [
    "Ended",
    Exit.isSuccess(exit) ? exit.value : broken(order, exit.cause)
  ])
}

/** Remembers how work on an order ended, until it is taken up again. */
const remember = Effect.fnUntraced(function* (state: State, ended: WorkEnd) {
  if (ended.kind === "concluded") {
    state.pauses.delete(ended.order)
    return
  }
  const before = state.pauses.get(ended.order)
  const failed = ended.kind === "failed"
  const failures = failed ? (before?.failures ?? 0) + 1 : 0
  const repeats = failed || before === undefined ? 0 : before.repeats + 1
  const longerMs = Math.min(
    ended.pauseMs * 2 ** Math.min(repeats, 10),
    Math.max(longestPauseMs, ended.pauseMs)
  )
  const pauseMs = failed ? yield* delayAfter(failureDelays, failures) : longerMs
  const { detail, trouble } = ended
  state.pauses.set(ended.order, {
    untilAt: (yield* monotonicMs) + pauseMs,
    detail,
    trouble,
    failures,
    repeats
  })
  if (detail === before?.detail) return
  yield* Effect.logInfo(`an order is put off: ${detail}`).pipe(Effect.annotateLogs({ order: ended.order }))
})

const statusOf = (state: State) =>
  Effect.map(
    monotonicMs,
    (nowAt): LaneStatus => ({
      current: state.progress,
      waiting: [...state.pauses].map(([order, pause]) => ({
        order,
        pauseMs: Math.max(pause.untilAt - nowAt, 0),
        detail: pause.detail
      })),
      draining: state.draining
    })
  )

/** Takes up the first order that is not put off; else sleeps until the first of those. */
const takeNext = (
  context: Context,
  name: LaneName,
  state: State,
  environment: LaneEnvironment,
  alarm: Alarm
) =>
  Effect.gen(function* () {
    if (state.current !== null || state.draining) return
    const ledger = yield* Ledger
    const rows = yield* ledger.unfinished(name)
    const known = new Set<string>(rows.map((row) => row.order.id))
    for (const order of state.pauses.keys()) if (!known.has(order)) state.pauses.delete(order)
    for (const order of state.stops) if (!known.has(order)) state.stops.delete(order)
    const nowAt = yield* monotonicMs
    const untilAt = (row: LedgerOrder) => state.pauses.get(row.order.id)?.untilAt ?? nowAt
    const row = rows.find((candidate) => untilAt(candidate) <= nowAt)
    if (row !== undefined) return yield* takeUp(context, state, environment, row)
    if (rows.length > 0) yield* alarm.ringIn(Math.min(...rows.map(untilAt)) - nowAt)
  }).pipe(
    Effect.catch((error) =>
      Effect.andThen(
        Effect.logError(`the ledger cannot be read: ${error.reason}`),
        alarm.ringIn(ledgerRetryMs)
      )
    )
  )

/** Somebody asks that an order stop: the one in hand at once, another when it is looked at, which is now. */
const askToStop = (state: State, order: OrderId, reason: StopReason): boolean => {
  if (state.current?.order === order) {
    Deferred.doneUnsafe(state.current.stop, Effect.succeed(reason))
    return true
  }
  const pause = state.pauses.get(order)
  if (pause !== undefined) state.pauses.set(order, { ...pause, untilAt: 0 })
  if (reason === "stopped_by_server") state.stops.add(order)
  return false
}

/** The behaviour of the lane `name`. */
export const lane = (name: LaneName, options: LaneOptions) =>
  Behaviour.make(LaneProtocol, (context) =>
    Effect.gen(function* () {
      const mainLoop = context.ref(MainLoopKey)
      const state: State = {
        current: null,
        progress: null,
        pauses: new Map(),
        stops: new Set(),
        draining: false
      }
      const environment = makeEnvironment(context, options, state)
      const alarm = yield* makeAlarm(context.self.tell("Due"))
      const next = takeNext(context, name, state, environment, alarm)
      // What was in hand when the last life ended stands in the ledger.
      yield* alarm.ringIn(0)
      return context.handlers({
        Wake: () => next,
        Reached: () => {
          // What failed for a reason of the device's own is none the better for it.
          for (const [order, pause] of state.pauses) {
            if (pause.failures === 0) state.pauses.set(order, { ...pause, untilAt: 0, repeats: 0 })
          }
          return next
        },
        Due: () => next,
        Stop: ({ payload }) =>
          Effect.suspend(() => (askToStop(state, payload.order, payload.reason) ? Effect.void : next)),
        Drain: () =>
          Effect.sync(() => {
            state.draining = true
            return state.current === null || !askToStop(state, state.current.order, "device_stopped")
          }),
        Status: () => statusOf(state),
        Ended: Effect.fnUntraced(function* ({ payload }) {
          state.current = null
          state.progress = null
          yield* remember(state, payload)
          if (payload.kind === "concluded") yield* Effect.ignore(mainLoop.tell("Nudge"))
          yield* next
        })
      })
    })
  )

/**
 * The outbox: a loop of its own that sends what waits in the ledger, oldest first, and rests when nothing does. It never
 * holds up the main loop or a lane, and survives whatever the server says of a single item.
 */
import { Cause, Effect, Exit } from "effect"
import { Behaviour } from "../kernel/index.ts"
import { Ledger } from "../ports/Ledger.ts"
import { ServerLink } from "../ports/ServerLink.ts"
import type { OrderId } from "../schemas/Ids.ts"
import { Limits } from "../schemas/Limits.ts"
import { OutboxProtocol, type RoundEnd } from "../schemas/protocols/Outbox.ts"
import type { OrderProgress } from "../schemas/WorkOrder.ts"
import { makeAlarm, monotonicMs } from "./Alarm.ts"
import { TrustKeeperKey, WatchdogKey } from "./ClientKeys.ts"
import { type Delays, delayAfter } from "./Delays.ts"
import { freshMemory, type RoundMemory, sendRound } from "./OutboxRound.ts"
import { linkProblem } from "./TrustSteps.ts"

/** Between rounds that did not reach the server. */
const failureDelays: Delays = { firstMs: 1_000, factor: 2, maximumMs: 60_000 }
/** Between attempts at a receipt the server refuses. */
const heldDelays: Delays = { firstMs: 10_000, factor: 3, maximumMs: 3_600_000 }
/** A look at the ledger even if nobody says there is something: a lost message must not strand a receipt. */
const idleMs = 60_000
/** A round is up to 32 requests and some large files, each with its own time limit. */
const roundWithinMs = 3_600_000

interface State {
  readonly memory: RoundMemory
  readonly progress: Map<OrderId, OrderProgress>
  sending: boolean
  /** Something was put in while a round was under way. */
  again: boolean
  failures: number
  reached: boolean | null
  dropped: number
}

const end = (kind: RoundEnd["kind"], sent: number, pauseMs: number, detail: string): RoundEnd => ({
  kind,
  sent,
  pauseMs,
  detail
})

/** Steps on the orders' way; nothing is lost with them, since the poll tells them again. */
const sendProgress = Effect.fnUntraced(function* (events: ReadonlyArray<OrderProgress>) {
  if (events.length === 0) return
  const link = yield* ServerLink
  yield* Effect.ignore(link.progress({ events: events.slice(0, Limits.progressEvents) }))
})

/** One round as a task: never fails. */
const round = (state: State, events: ReadonlyArray<OrderProgress>) =>
  Effect.gen(function* () {
    yield* sendProgress(events)
    const nowAt = yield* monotonicMs
    const { dropped, held, left, sent, stuck } = yield* sendRound(state.memory, nowAt)
    state.dropped += dropped
    for (const item of held) {
      const failures = (state.memory.held.get(item.id)?.failures ?? 0) + 1
      const pauseMs = yield* delayAfter(heldDelays, failures)
      state.memory.held.set(item.id, { untilAt: nowAt + pauseMs, failures })
      yield* Effect.logError(
        `the server does not take receipt ${item.number}; it is kept and tried again in ${pauseMs} ms`
      )
    }
    if (sent === 0 && stuck[0] !== undefined) return end("failed", 0, 0, stuck[0])
    if (left > state.memory.held.size) return end("more", sent, 0, "")
    if (left === 0) return end("empty", sent, idleMs, "")
    const first = Math.min(...[...state.memory.held.values()].map((entry) => entry.untilAt))
    return end("held", sent, Math.max(first - nowAt, 1_000), `${left} receipts are held`)
  }).pipe(
    Effect.catchTags({
      LedgerError: (error) =>
        Effect.succeed(end("failed", 0, 0, `the ledger cannot be read: ${error.reason}`)),
      ServerUnreachable: (error) => Effect.succeed(end("failed", 0, 0, linkProblem(error))),
      ServerUntrusted: (error) => Effect.succeed(end("failed", 0, 0, linkProblem(error))),
      ServerRefused: (error) => Effect.succeed(end("failed", 0, error.retryAfterMs ?? 0, linkProblem(error)))
    })
  )

const freshState = (): State => ({
  memory: freshMemory(),
  progress: new Map(),
  sending: false,
  again: false,
  failures: 0,
  reached: null,
  dropped: 0
})

/** What a round's end changes; gives how long to wait for the next, null for not at all. */
const account = Effect.fnUntraced(function* (state: State, ended: RoundEnd) {
  state.sending = false
  const failed = ended.kind === "failed"
  if (failed && state.failures === 0) yield* Effect.logInfo(`results wait to be sent: ${ended.detail}`)
  state.failures = failed ? state.failures + 1 : 0
  if (failed || ended.sent > 0) state.reached = !failed
  if (failed) return Math.max(ended.pauseMs, yield* delayAfter(failureDelays, state.failures))
  return state.again || ended.kind === "more" ? null : ended.pauseMs
})

/** Keeps a step to be told; beyond what one request holds, the poll will tell it. */
const keepProgress = (state: State, progress: OrderProgress): void => {
  if (state.progress.size < Limits.progressEvents || state.progress.has(progress.order)) {
    state.progress.set(progress.order, progress)
  }
}

/** The outbox's behaviour. */
export const outbox = Behaviour.make(OutboxProtocol, (context) =>
  Effect.gen(function* () {
    const ledger = yield* Ledger
    const trust = context.ref(TrustKeeperKey)
    const watchdog = context.ref(WatchdogKey)
    const state = freshState()
    const alarm = yield* makeAlarm(context.self.tell("Due"))
    const beat = (withinMs: number, done = false) =>
      Effect.andThen(context.beat, Effect.ignore(watchdog.tell("Beat", { loop: "outbox", withinMs, done })))
    const waitFor = (delayMs: number, done = true) =>
      Effect.andThen(beat(delayMs + roundWithinMs, done), alarm.ringIn(delayMs))

    /** Without trust there is nobody to send to. */
    const task = Effect.gen(function* () {
      const { held } = yield* trust.ask("View")
      if (held === null) return end("held", 0, 2_000, "there is no trust yet")
      const events = [...state.progress.values()]
      state.progress.clear()
      return yield* round(state, events)
    }).pipe(Effect.catch((error) => Effect.succeed(end("failed", 0, 0, error.message))))

    const begin = Effect.suspend(() => {
      state.again = state.sending
      if (state.sending) return Effect.void
      state.sending = true
      const sending = context.startTask(task, (exit) => [
        "RoundEnded",
        Exit.isSuccess(exit) ? exit.value : end("failed", 0, 0, Cause.pretty(exit.cause))
      ])
      return Effect.andThen(beat(roundWithinMs), sending)
    })
    /** While the server is not reached, new items wait out the pause like the old ones. */
    const beginUnlessPausing = Effect.suspend(() => (state.failures > 0 ? Effect.void : begin))
    yield* waitFor(0, false)
    return context.handlers({
      Wake: () => beginUnlessPausing,
      Reached: () => begin,
      Due: () => begin,
      Progress: ({ payload }) =>
        Effect.andThen(
          Effect.sync(() => keepProgress(state, payload)),
          beginUnlessPausing
        ),
      Status: () =>
        Effect.map(
          Effect.orElseSucceed(ledger.outboxSize, () => ({ items: 0, bytes: 0 })),
          (size) => ({ ...size, reached: state.reached, dropped: state.dropped })
        ),
      RoundEnded: Effect.fnUntraced(function* ({ payload }) {
        const pauseMs = yield* account(state, payload)
        if (pauseMs !== null) return yield* waitFor(pauseMs)
        yield* beat(roundWithinMs, true)
        yield* begin
      }),
      Restart: () => context.stopSelf
    })
  })
)

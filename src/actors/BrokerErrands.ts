/**
 * What others want of the broker and may have to wait for. Nobody else waits for it: each errand stands in one of a few
 * lines that are worked off side by side, and whoever asked has a ticket. Errands of one topic, or one agent, keep their
 * order.
 */
import { Cause, Deferred, Effect, Exit, Hash, Queue } from "effect"
import type { BrokerError } from "../ports/MessageBroker.ts"
import { type BrokerTicket, NoBroker } from "../schemas/protocols/BrokerKeeper.ts"

export interface ErrandOptions {
  /** Errands that are done side by side. */
  readonly lines: number
  /** Errands that wait in one line; more are refused. */
  readonly waiting: number
}

/** The broker has its own time limits; this one is for a broker that forgets to answer. */
const errandMs = 60_000

/** Which of so many lines a key stands in. */
const lineOf = (key: string, lines: number): number => (Hash.string(key) >>> 0) % lines

const noBroker = (reason: string): NoBroker => new NoBroker({ reason })

/** Bounded, and free of defects: a broker that throws has failed at this errand alone. */
const bounded = <A>(work: Effect.Effect<A, BrokerError>): Effect.Effect<Exit.Exit<A, NoBroker>> =>
  work.pipe(
    Effect.mapError(({ message }) => noBroker(message)),
    Effect.timeoutOrElse({
      duration: errandMs,
      orElse: () => Effect.fail(noBroker(`the MQTT broker does not answer within ${errandMs} ms`))
    }),
    Effect.catchDefect((defect) => {
      const reason = `the MQTT broker failed: ${Cause.pretty(Cause.die(defect))}`
      return Effect.andThen(Effect.logError(reason), Effect.fail(noBroker(reason)))
    }),
    Effect.exit
  )

/** Lines that end with the scope; what waits in them then has no broker. */
export const makeErrands = ({ lines, waiting }: ErrandOptions) =>
  Effect.gen(function* () {
    const open = new Set<() => void>()
    /** Tickets of errands that may serve others, by key. */
    const unbegun = new Map<string, unknown>()
    yield* Effect.addFinalizer(() => Effect.sync(() => open.forEach((end) => end())))
    const queues = yield* Effect.forEach(Array.from({ length: lines }), () =>
      Effect.gen(function* () {
        const queue = yield* Queue.dropping<Effect.Effect<void>>(waiting)
        yield* Effect.forkScoped(Effect.forever(Effect.flatten(Queue.take(queue))))
        return queue
      })
    )
    const submit = <A>(key: string, work: Effect.Effect<A, BrokerError>, isShared = false) =>
      Effect.suspend((): Effect.Effect<BrokerTicket<A>, NoBroker> => {
        const answer = Deferred.makeUnsafe<Exit.Exit<A, NoBroker>>()
        const ticket: BrokerTicket<A> = { id: 0, waitMs: errandMs, answer }
        const settle = (exit: Exit.Exit<A, NoBroker>): void => {
          open.delete(end)
          Deferred.doneUnsafe(answer, Effect.succeed(exit))
        }
        const end = (): void => settle(Exit.fail(noBroker("the MQTT broker was closed")))
        const run = Effect.suspend(() => {
          if (unbegun.get(key) === ticket) unbegun.delete(key)
          return Effect.map(bounded(work), settle)
        })
        if (!Queue.offerUnsafe(queues[lineOf(key, lines)] as Queue.Queue<Effect.Effect<void>>, run))
          return Effect.fail(noBroker("too much waits for the MQTT broker already"))
        open.add(end)
        // What stands behind another errand must not be done before it.
        if (isShared) unbegun.set(key, ticket)
        else unbegun.delete(key)
        return Effect.succeed(ticket)
      })
    return {
      /** Puts an errand in the line of a key. */
      submit: <A>(key: string, work: Effect.Effect<A, BrokerError>) => submit(key, work),
      /** The same, unless its like stands last in the line and has not begun: then that one serves both. */
      submitOnce: <A>(key: string, work: Effect.Effect<A, BrokerError>) =>
        Effect.suspend(() => {
          const known = unbegun.get(key) as BrokerTicket<A> | undefined
          return known === undefined ? submit(key, work, true) : Effect.succeed(known)
        })
    }
  })

/** Asking: the answer comes back to the asker; the kernel's asks all have a deadline, as have nact's queries. */
import { Deferred, Effect, Queue } from "effect"
import { type Bench, type Contender, compare, race, timed } from "../measure.ts"
import { nact, open } from "./setting.ts"

const capacity = 1_024

/** `count` asks, shared out among `askers` that ask one after the other. */
const among = (
  askers: number,
  count: number,
  ask: () => Effect.Effect<unknown, unknown>
): Effect.Effect<void, unknown> => {
  const one = () => {
    let left = count / askers
    return Effect.whileLoop({ while: () => left-- > 0, body: ask, step: () => undefined })
  }
  return Effect.forEach(Array.from({ length: askers }), one, { concurrency: "unbounded", discard: true })
}

const kernel =
  (askers: number): Contender =>
  async (count) => {
    const { ref, close } = await open(capacity, "reject")
    const ms = await timed(() => Effect.runPromise(among(askers, count, () => ref.ask("Total"))))
    await close()
    return ms
  }

const primitives =
  (askers: number): Contender =>
  (count) =>
    timed(() =>
      Effect.runPromise(
        Effect.gen(function* () {
          const queue = yield* Queue.bounded<Deferred.Deferred<number>>(capacity)
          let total = 0
          const answer = (reply: Deferred.Deferred<number>) => Deferred.succeed(reply, ++total)
          yield* Effect.forkChild(Effect.forever(Effect.flatMap(Queue.take(queue), answer)))
          yield* among(askers, count, () => {
            const reply = Deferred.makeUnsafe<number>()
            return Effect.andThen(Queue.offer(queue, reply), Deferred.await(reply))
          })
        })
      )
    )

const peer =
  (askers: number): Contender =>
  async (count) => {
    const system = nact.start()
    let total = 0
    const actor = nact.spawnStateless(system, ((_: unknown, context: { readonly sender: unknown }) => {
      nact.dispatch(context.sender, ++total)
    }) as never)
    const one = async (): Promise<void> => {
      for (let left = count / askers; left > 0; left--) {
        await nact.query(actor, {}, 5_000)
      }
    }
    const ms = await timed(() => Promise.all(Array.from({ length: askers }, one)))
    nact.stop(system)
    return ms
  }

export const run: Bench = async ({ short }) => {
  const options = short ? { count: 25_600, rounds: 3 } : { count: 102_400, rounds: 7 }
  const aims = { "Effect Queue and Deferred": { atLeast: 0.5 }, nact: { atLeast: 1.2 } }
  const contenders = (askers: number) => ({
    kernel: kernel(askers),
    "Effect Queue and Deferred": primitives(askers),
    nact: peer(askers)
  })
  const about = { unit: "asks/s", better: "higher" } as const
  return [
    compare({ name: "ask, one asker", ...about }, await race(contenders(1), options), "kernel", aims),
    compare({ name: "ask, 64 askers", ...about }, await race(contenders(64), options), "kernel", aims)
  ]
}

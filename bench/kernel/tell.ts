/** Telling: one sender, one receiver. Ours is a mailbox of 1,024 with back-pressure; the peers are unbounded, which is quicker. */
import { Effect, Queue } from "effect"
import { type Bench, type Contender, compare, race, timed } from "../measure.ts"
import { nact, open } from "./setting.ts"

const capacity = 1_024

const loop = (count: number, body: () => Effect.Effect<unknown, unknown>): Effect.Effect<void, unknown> => {
  let left = count
  return Effect.whileLoop({ while: () => left-- > 0, body, step: () => undefined })
}

const kernel: Contender = async (count) => {
  const { ref, close } = await open(capacity, "wait")
  const work = Effect.andThen(
    loop(count, () => ref.tell("Count", { step: 1 })),
    ref.ask("Total")
  )
  const ms = await timed(async () => {
    const total = await Effect.runPromise(work)
    if (total !== count + 1) {
      throw new Error(`the kernel handled ${total - 1} of ${count} messages`)
    }
  })
  await close()
  return ms
}

const primitives: Contender = (count) =>
  timed(() =>
    Effect.runPromise(
      Effect.gen(function* () {
        const queue = yield* Queue.unbounded<{ readonly step: number }>()
        let total = 0
        const handle = (message: { readonly step: number }) =>
          Effect.sync(() => {
            total += message.step
          })
        const receiver = loop(count, () => Effect.flatMap(Queue.take(queue), handle))
        yield* Effect.forkChild(loop(count, () => Queue.offer(queue, { step: 1 })))
        yield* receiver
        if (total !== count) {
          throw new Error(`the queue delivered ${total} of ${count} messages`)
        }
      })
    )
  )

const peer: Contender = async (count) => {
  const system = nact.start()
  let total = 0
  let finish = (): void => undefined
  const done = new Promise<void>((resolve) => {
    finish = resolve
  })
  const actor = nact.spawnStateless(system, ((message: { readonly step: number }) => {
    total += message.step
    if (total === count) {
      finish()
    }
  }) as never)
  const ms = await timed(() => {
    for (let sent = 0; sent < count; sent++) {
      nact.dispatch(actor, { step: 1 })
    }
    return done
  })
  nact.stop(system)
  return ms
}

export const run: Bench = async ({ short }) => {
  const options = short ? { count: 50_000, rounds: 3 } : { count: 200_000, rounds: 7 }
  const rates = await race({ kernel, "Effect Queue": primitives, nact: peer }, options)
  const aims = { "Effect Queue": { atLeast: 0.5 }, nact: { atLeast: 3 } }
  return [compare({ name: "tell", unit: "messages/s", better: "higher" }, rates, "kernel", aims)]
}

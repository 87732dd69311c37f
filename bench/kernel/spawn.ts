/**
 * Spawning: actors started by a handler, each ready to receive; and what one idle actor holds in memory. The primitives
 * are a bounded queue and a fiber that takes from it, without supervision, address or Scope.
 */
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { Effect, Exit, Fiber, Queue, Schema, Scope } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { ActorKey, ActorSystem, Behaviour, ChildSpec, Supervisor } from "../../src/kernel/index.ts"
import { type Bench, type Contender, compare, race, timed } from "../measure.ts"
import { nact } from "./setting.ts"

const IdleProtocol = RpcGroup.make(Rpc.make("Ping"))
const ParentProtocol = RpcGroup.make(Rpc.make("Spawn", { payload: { count: Schema.Int } }))
const Parent = ActorKey.make("parent", ParentProtocol)

const idle = Behaviour.make(IdleProtocol, (ctx) => Effect.succeed(ctx.handlers({ Ping: () => Effect.void })))
const parent = Behaviour.make(ParentProtocol, (ctx) =>
  Effect.succeed(
    ctx.handlers({
      Spawn: ({ payload }) => {
        let next = 0
        return Effect.orDie(
          Effect.whileLoop({
            while: () => next < payload.count,
            body: () => ctx.spawn(ChildSpec.make({ id: `child-${next++}`, behaviour: idle })),
            step: () => undefined
          })
        )
      }
    })
  )
)

const kernelSetting = async (): Promise<{
  spawn: (count: number) => Promise<void>
  close: () => Promise<void>
}> => {
  const scope = Scope.makeUnsafe()
  const children = [ChildSpec.make({ key: Parent, behaviour: parent, shutdownMs: 60_000 })]
  const root = Supervisor.spec({ id: "bench", strategy: "one-for-one", children })
  const system = await Effect.runPromise(
    Effect.provideService(ActorSystem.make({ root }), Scope.Scope, scope)
  )
  return {
    spawn: (count) => Effect.runPromise(system.ref(Parent).ask("Spawn", { count }, { timeoutMs: 60_000 })),
    close: () => Effect.runPromise(Scope.close(scope, Exit.void))
  }
}

const primitiveActor = Effect.gen(function* () {
  const queue = yield* Queue.bounded<string>(1_024)
  const fiber = yield* Effect.forkDetach(Effect.forever(Queue.take(queue)))
  yield* Effect.yieldNow
  return { queue, fiber }
})

const primitiveActors = (count: number) =>
  Effect.runPromise(Effect.forEach(Array.from({ length: count }), () => primitiveActor))

const kernel: Contender = async (count) => {
  const { spawn, close } = await kernelSetting()
  const ms = await timed(() => spawn(count))
  await close()
  return ms
}

const primitives: Contender = async (count) => {
  let made: ReadonlyArray<{ readonly fiber: Fiber.Fiber<unknown> }> = []
  const ms = await timed(async () => {
    made = await primitiveActors(count)
  })
  await Effect.runPromise(Fiber.interruptAll(made.map(({ fiber }) => fiber)))
  return ms
}

/** nact stops every actor with a timer and refuses thousands of children, so it gets a hundredth of the actors. */
const peer: Contender = async (count) => {
  const system = nact.start()
  const some = Math.ceil(count / 100)
  const ms = await timed(async () => {
    for (let made = 0; made < some; made++) {
      nact.spawnStateless(system, (() => undefined) as never, `child-${made}`)
    }
  })
  nact.stop(system)
  return ms * (count / some)
}

const collectGarbage = (): (() => void) => {
  setFlagsFromString("--expose-gc")
  return runInNewContext("gc") as () => void
}

/** Heap bytes per item that `make` leaves behind. */
const heapPer = async (count: number, make: () => Promise<unknown>): Promise<number> => {
  const gc = collectGarbage()
  gc()
  const before = process.memoryUsage().heapUsed
  const kept = await make()
  gc()
  const after = process.memoryUsage().heapUsed
  return kept === undefined ? Number.NaN : (after - before) / count
}

const memory = async (count: number) => {
  const { spawn, close } = await kernelSetting()
  const ours = await heapPer(count, async () => {
    await spawn(count)
    return close
  })
  await close()
  let made: ReadonlyArray<{ readonly fiber: Fiber.Fiber<unknown> }> = []
  const theirs = await heapPer(count, async () => {
    made = await primitiveActors(count)
    return made
  })
  await Effect.runPromise(Fiber.interruptAll(made.map(({ fiber }) => fiber)))
  return { ours, theirs }
}

export const run: Bench = async ({ short }) => {
  const options = short ? { count: 2_000, rounds: 3 } : { count: 10_000, rounds: 7 }
  const rates = await race({ kernel, "Effect fiber and Queue": primitives, nact: peer }, options)
  const { ours, theirs } = await memory(options.count)
  return [
    compare({ name: "spawn", unit: "actors/s", better: "higher" }, rates, "kernel", {
      "Effect fiber and Queue": { atLeast: 0.5 }
    }),
    compare(
      { name: "memory of an idle actor", unit: "bytes", better: "lower" },
      { kernel: ours, "Effect fiber and Queue": theirs },
      "kernel",
      { "Effect fiber and Queue": { atMost: 2 } }
    )
  ]
}

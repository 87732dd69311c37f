/** The contenders' common furniture: one counting actor in the kernel, and nact without types. */
import { createRequire } from "node:module"
import { Effect, Exit, Schema, Scope } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import {
  ActorKey,
  type ActorRef,
  ActorSystem,
  Behaviour,
  ChildSpec,
  Supervisor
} from "../../src/kernel/index.ts"

const CountProtocol = RpcGroup.make(
  Rpc.make("Count", { payload: { step: Schema.Int } }),
  Rpc.make("Total", { success: Schema.Int })
)
type CountRpcs = typeof CountProtocol extends RpcGroup.RpcGroup<infer R> ? R : never
const Count = ActorKey.make("count", CountProtocol)

const counting = Behaviour.make(CountProtocol, (ctx) =>
  Effect.sync(() => {
    let total = 0
    return ctx.handlers({
      Count: ({ payload }) =>
        Effect.sync(() => {
          total += payload.step
        }),
      Total: () => Effect.sync(() => ++total)
    })
  })
)

/** A system with one counting actor. */
export interface Setting {
  readonly ref: ActorRef<CountRpcs>
  readonly close: () => Promise<void>
}

export const open = async (capacity: number, overflow: "wait" | "reject"): Promise<Setting> => {
  const scope = Scope.makeUnsafe()
  const child = ChildSpec.make({ key: Count, behaviour: counting, mailbox: { capacity, overflow } })
  const root = Supervisor.spec({ id: "bench", strategy: "one-for-one", children: [child] })
  const system = await Effect.runPromise(
    Effect.provideService(ActorSystem.make({ root }), Scope.Scope, scope)
  )
  return { ref: system.ref(Count), close: () => Effect.runPromise(Scope.close(scope, Exit.void)) }
}

interface Nact {
  start(): unknown
  stop(system: unknown): void
  spawn(parent: unknown, f: (state: never, message: never, context: never) => unknown, name?: string): unknown
  spawnStateless(parent: unknown, f: (message: never, context: never) => unknown, name?: string): unknown
  dispatch(actor: unknown, message: unknown, sender?: unknown): void
  query(actor: unknown, message: unknown, timeoutMs: number): Promise<unknown>
}

export const nact = createRequire(import.meta.url)("nact") as Nact

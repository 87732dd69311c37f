/**
 * Specifications of supervisors. Both are child specifications themselves, so that trees are nested data.
 */
import type { ActorKey, DynamicKey } from "./ActorKey.ts"
import { Backoff, type BackoffOptions } from "./Backoff.ts"
import {
  type AnySpec,
  type ChildSpec,
  completeBackoff,
  type DynamicSpec,
  type RestartType,
  type Strategy,
  type SupervisorSpec
} from "./ChildSpec.ts"
import type { AnyRpc } from "./Protocol.ts"

export type { ActorKey }

/** What `Supervisor.spec` takes. */
export interface SupervisorInput<Children extends ReadonlyArray<AnySpec>> {
  readonly id: string
  readonly strategy: Strategy
  /** Children in start order; they are stopped in the reverse order. */
  readonly children: Children
  /** Default 3 restarts in `periodMs`. */
  readonly intensity?: number | undefined
  /** Default 60,000. */
  readonly periodMs?: number | undefined
  /** Members left out come from `Backoff.standard`. */
  readonly backoff?: BackoffOptions | undefined
  /** Default false. An optional part degrades where a vital one escalates. */
  readonly optional?: boolean | undefined
  /** Members left out come from `Backoff.degraded`. */
  readonly degradedBackoff?: BackoffOptions | undefined
  /** What the parent does when this supervisor has given up. Default `permanent`. */
  readonly restart?: RestartType | undefined
}

/** What `Supervisor.dynamic` takes. */
export interface DynamicInput<Rpcs extends AnyRpc, R> {
  /** The last step of the path; the key's name when left out. */
  readonly id?: string | undefined
  readonly key: DynamicKey<Rpcs>
  /** Makes the specification of the child `id`; the child's own id is always `id`, and its `key` is ignored. */
  readonly child: (id: string) => ChildSpec<Rpcs, R>
  /** Upper bound of children in memory. Default 10,000. */
  readonly maximum?: number | undefined
  /** Idle time after which a child is stopped. Default 0: never. */
  readonly passivateAfterMs?: number | undefined
  readonly intensity?: number | undefined
  readonly periodMs?: number | undefined
  readonly backoff?: BackoffOptions | undefined
  readonly degradedBackoff?: BackoffOptions | undefined
  readonly restart?: RestartType | undefined
}

/** A supervisor without children needs nothing; `never` would otherwise infer `unknown`. */
type ServicesOf<Children extends ReadonlyArray<AnySpec>> = [Children[number]] extends [never]
  ? never
  : Children[number] extends AnySpec<infer R>
    ? R
    : never

export const Supervisor = {
  /** A supervisor with a fixed list of children. */
  spec: <const Children extends ReadonlyArray<AnySpec>>(
    input: SupervisorInput<Children>
  ): SupervisorSpec<ServicesOf<Children>> => ({
    _tag: "Supervisor",
    children: input.children,
    options: {
      id: input.id,
      restart: input.restart ?? "permanent",
      strategy: input.strategy,
      intensity: input.intensity ?? 3,
      periodMs: input.periodMs ?? 60_000,
      backoff: completeBackoff(input.backoff, Backoff.standard),
      optional: input.optional ?? false,
      degradedBackoff: completeBackoff(input.degradedBackoff, Backoff.degraded)
    }
  }),
  /** A supervisor whose children are started on demand by key and passivated when idle. */
  dynamic: <Rpcs extends AnyRpc, R>(input: DynamicInput<Rpcs, R>): DynamicSpec<R> => ({
    _tag: "Dynamic",
    key: input.key,
    child: input.child,
    options: {
      id: input.id ?? input.key.name,
      restart: input.restart ?? "permanent",
      maximum: input.maximum ?? 10_000,
      passivateAfterMs: input.passivateAfterMs ?? 0,
      intensity: input.intensity ?? 3,
      periodMs: input.periodMs ?? 60_000,
      backoff: completeBackoff(input.backoff, Backoff.standard),
      degradedBackoff: completeBackoff(input.degradedBackoff, Backoff.degraded)
    }
  })
}

/**
 * Child specifications: supervision as data.
 *
 * A specification has a part that is plain data, decoded by a Schema and printable (`ChildOptions`), and the behaviour
 * or the children it holds. A wrong one fails by name (`BadSpec`) before anything is started.
 */
import { Effect, Schema } from "effect"
import type { ActorKey, DynamicKey } from "./ActorKey.ts"
import { type BackoffOptions, BackoffSpec } from "./Backoff.ts"
import type { Behaviour } from "./Behaviour.ts"
import { BadSpec } from "./Errors.ts"
import type { AnyRpc } from "./Protocol.ts"

/** When a child that ended is started again: always, only after a crash, or never. */
export const RestartType = Schema.Literals(["permanent", "transient", "temporary"])
export type RestartType = typeof RestartType.Type

/** What a full mailbox does: let in-process senders wait, refuse, or drop its oldest message. */
export const OverflowPolicy = Schema.Literals(["wait", "reject", "drop-oldest"])
export type OverflowPolicy = typeof OverflowPolicy.Type

/** Which siblings share a crashed child's fate: none, all of them, or those started after it. */
export const Strategy = Schema.Literals(["one-for-one", "one-for-all", "rest-for-one"])
export type Strategy = typeof Strategy.Type

const Milliseconds = Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 86_400_000 }))
const Count = (maximum: number) => Schema.Int.check(Schema.isBetween({ minimum: 1, maximum }))

/** An id: one step of a path, so without slashes and blanks. */
export const ChildId = Schema.String.check(Schema.isPattern(/^[A-Za-z0-9_.:@=+-]{1,128}$/))

/** The data of an actor's specification. */
export const ActorOptions = Schema.Struct({
  id: ChildId,
  restart: RestartType,
  /** The factory must have run after this many milliseconds, else the start has failed. */
  startTimeoutMs: Milliseconds,
  /** How long the handler in hand may go on when the actor is stopped, before it is interrupted. */
  shutdownMs: Milliseconds,
  mailbox: Schema.Struct({ capacity: Count(1_000_000), overflow: OverflowPolicy }),
  /** Upper bound of tasks running at one time in one life; starting more is a defect. */
  maximumTasks: Count(100_000)
})
export type ActorOptions = typeof ActorOptions.Type

/** The data of a supervisor's specification. */
export const SupervisorOptions = Schema.Struct({
  id: ChildId,
  restart: RestartType,
  strategy: Strategy,
  /** More than `intensity` restarts within `periodMs` and the supervisor gives up (or degrades, when optional). */
  intensity: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 1_000_000 })),
  periodMs: Milliseconds,
  backoff: BackoffSpec,
  /** An optional part degrades instead of giving up: it goes on trying with `degradedBackoff`. */
  optional: Schema.Boolean,
  degradedBackoff: BackoffSpec
})
export type SupervisorOptions = typeof SupervisorOptions.Type

/** The data of a dynamic supervisor's specification. */
export const DynamicOptions = Schema.Struct({
  id: ChildId,
  restart: RestartType,
  maximum: Count(10_000_000),
  /** A child idle for this long is stopped; the next message starts it again. 0 keeps children for ever. */
  passivateAfterMs: Milliseconds,
  /** Per child: more restarts than this within `periodMs` and the child goes on with `degradedBackoff`. */
  intensity: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 1_000_000 })),
  periodMs: Milliseconds,
  backoff: BackoffSpec,
  degradedBackoff: BackoffSpec
})
export type DynamicOptions = typeof DynamicOptions.Type

/** Specification of one actor. */
export interface ChildSpec<Rpcs extends AnyRpc, out R = never> {
  readonly _tag: "Actor"
  readonly options: Schema.Codec.Encoded<typeof ActorOptions>
  readonly key: ActorKey<Rpcs> | undefined
  readonly behaviour: Behaviour<Rpcs, R>
}

/** Specification of a supervisor with a fixed list of children. */
export interface SupervisorSpec<out R = never> {
  readonly _tag: "Supervisor"
  readonly options: Schema.Codec.Encoded<typeof SupervisorOptions>
  readonly children: ReadonlyArray<AnySpec<R>>
}

/** Specification of a supervisor whose children come and go by key. */
export interface DynamicSpec<out R = never> {
  readonly _tag: "Dynamic"
  readonly options: Schema.Codec.Encoded<typeof DynamicOptions>
  readonly key: DynamicKey<any>
  readonly child: (id: string) => ChildSpec<any, R>
}

/** Any child of a supervisor. */
export type AnySpec<R = any> = ChildSpec<any, R> | SupervisorSpec<R> | DynamicSpec<R>

/** What `ChildSpec.make` takes; everything but the behaviour and a name has a default. */
export interface ChildSpecInput<Rpcs extends AnyRpc, R> {
  /** The last step of the path; the key's name when left out. */
  readonly id?: string | undefined
  /** The name others refer to this actor by. */
  readonly key?: ActorKey<Rpcs> | undefined
  readonly behaviour: Behaviour<Rpcs, R>
  /** Default `permanent`. */
  readonly restart?: RestartType | undefined
  /** Default 5,000. */
  readonly startTimeoutMs?: number | undefined
  /** Default 5,000. */
  readonly shutdownMs?: number | undefined
  /** Default capacity 1,024 and overflow `reject`. */
  readonly mailbox?:
    | { readonly capacity?: number | undefined; readonly overflow?: OverflowPolicy | undefined }
    | undefined
  /** Default 256. */
  readonly maximumTasks?: number | undefined
}

/** Makes the specification of an actor. It is checked when the tree (or the temporary child) is started. */
export const ChildSpec = {
  make: <Rpcs extends AnyRpc, R>(input: ChildSpecInput<Rpcs, R>): ChildSpec<Rpcs, R> => ({
    _tag: "Actor",
    key: input.key,
    behaviour: input.behaviour,
    options: {
      id: input.id ?? input.key?.name ?? "",
      restart: input.restart ?? "permanent",
      startTimeoutMs: input.startTimeoutMs ?? 5_000,
      shutdownMs: input.shutdownMs ?? 5_000,
      mailbox: { capacity: input.mailbox?.capacity ?? 1_024, overflow: input.mailbox?.overflow ?? "reject" },
      maximumTasks: input.maximumTasks ?? 256
    }
  }),
  /** The tree of a specification as printable data, children in start order. */
  describe: (spec: AnySpec): unknown =>
    spec._tag === "Supervisor"
      ? { ...spec.options, children: spec.children.map((child) => ChildSpec.describe(child)) }
      : { ...spec.options, key: spec.key?.name }
}

/** Fills a back-off's missing members. */
export const completeBackoff = (given: BackoffOptions | undefined, standard: BackoffSpec): BackoffSpec => ({
  ...standard,
  ...given
})

const schemaOf = (spec: AnySpec) =>
  spec._tag === "Actor" ? ActorOptions : spec._tag === "Supervisor" ? SupervisorOptions : DynamicOptions

/**
 * Checks a whole tree of specifications: each one's data by its Schema, ids unique among siblings, keys unique in the
 * tree. Fails with the name (the path) of the first bad one.
 */
export const checkSpec = (
  spec: AnySpec,
  parentPath: string,
  keys: Map<string, string> = new Map()
): Effect.Effect<void, BadSpec> =>
  Effect.suspend((): Effect.Effect<void, BadSpec> => {
    const path = `${parentPath}/${spec.options.id}`
    const bad = (issue: string) => Effect.fail(new BadSpec({ name: path, issue }))
    const decoded = Schema.decodeResult(schemaOf(spec) as Schema.Codec<unknown>)(spec.options)
    if (decoded._tag === "Failure") {
      return bad(decoded.failure.message)
    }
    const key = spec._tag === "Supervisor" ? undefined : spec.key
    if (key !== undefined) {
      const holder = keys.get(key.name)
      if (holder !== undefined) {
        return bad(`the key ${key.name} is already bound to ${holder}; a key names one child`)
      }
      keys.set(key.name, path)
    }
    if (spec._tag === "Actor" && key !== undefined && key.protocol !== spec.behaviour.protocol) {
      return bad(`the key ${key.name} names another protocol than the behaviour speaks`)
    }
    if (spec._tag !== "Supervisor") {
      return Effect.void
    }
    const ids = spec.children.map((child) => child.options.id)
    const twice = ids.find((id, index) => ids.indexOf(id) !== index)
    if (twice !== undefined) {
      return bad(`two children have the id ${twice}`)
    }
    return Effect.forEach(spec.children, (child) => checkSpec(child, path, keys), { discard: true })
  })

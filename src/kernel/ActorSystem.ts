/**
 * A system: one tree of supervised actors, with its own registry, deadlines, dead letters and trace. Nothing stands at
 * module level, so a process may hold many (a whole fleet in one simulation).
 */
import { type Context, Deferred, Effect, type Scope } from "effect"
import type { ActorKey, DynamicKey } from "./ActorKey.ts"
import type { ActorRef } from "./ActorRef.ts"
import { checkSpec, type DynamicSpec, type SupervisorSpec } from "./ChildSpec.ts"
import type { DeadLetters } from "./DeadLetters.ts"
import { type BadSpec, StartFailed } from "./Errors.ts"
import type { SystemInspection } from "./Inspection.ts"
import { Kernel } from "./internal/Kernel.ts"
import { makePublisher } from "./internal/KernelMetrics.ts"
import { makeNode } from "./internal/makeNode.ts"
import type { Down, Node, Owner } from "./internal/Node.ts"
import { NamedAddress, restartNamed } from "./internal/Reference.ts"
import type { AnyRpc } from "./Protocol.ts"
import type { TraceEvent } from "./Trace.ts"

/** Why a system has ended. */
export type Termination =
  | { readonly _tag: "Stopped" }
  /** The root failed more often than its intensity allows: the process should exit and be respawned. */
  | { readonly _tag: "GaveUp"; readonly reason: string }
  /** More abandoned lives than allowed still run: only a new process can get rid of them. */
  | { readonly _tag: "TooManyFencedLives"; readonly count: number }

/** What `ActorSystem.make` takes. */
export interface ActorSystemOptions<R> {
  /** Shown by inspection; the root's id when left out. */
  readonly name?: string | undefined
  readonly root: SupervisorSpec<R> | DynamicSpec<R>
  /** Deadline of asks that name none, and patience of senders in line. Default 5,000. */
  readonly askTimeoutMs?: number | undefined
  /** How long an interrupted life may take to end before it is abandoned. Default 1,000. */
  readonly interruptGraceMs?: number | undefined
  /** More abandoned lives than this terminate the system. Default 8. */
  readonly maximumFencedLives?: number | undefined
  /** Whether every message gets a tracing span; costs about as much as the message itself. Default false. */
  readonly spans?: boolean | undefined
  /** Called for everything that happens, in order; for simulations and debugging. */
  readonly trace?: ((event: TraceEvent) => void) | undefined
}

/** A running system. */
export interface ActorSystem {
  readonly name: string
  /** The address a key names. */
  ref<Rpcs extends AnyRpc>(key: ActorKey<Rpcs>): ActorRef<Rpcs>
  /** The address of the child `id` of a dynamic supervisor. */
  refOf<Rpcs extends AnyRpc>(key: DynamicKey<Rpcs>, id: string): ActorRef<Rpcs>
  /** Crashes the current life of an actor, bypassing its mailbox; false when it has none. See `ActorContext.restart`. */
  restart(key: ActorKey<any>, reason: string): Effect.Effect<boolean>
  /** The tree with its figures; at most `childLimit` children per node (default 1,000). */
  inspect(childLimit?: number): Effect.Effect<SystemInspection>
  readonly deadLetters: DeadLetters
  /** Counters since the start. */
  readonly totals: Readonly<Kernel["totals"]>
  /** Carries the counters over to Effect's metrics; a page that shows metrics runs this first. */
  readonly publishMetrics: Effect.Effect<void>
  /** Stops the tree in reverse order of its start; resolves when nothing runs any more or what runs is fenced. */
  readonly stop: Effect.Effect<void>
  /** Waits until the system has ended, and says why. */
  readonly terminated: Effect.Effect<Termination>
}

class Root implements Owner {
  private readonly terminated: Deferred.Deferred<Termination>
  constructor(terminated: Deferred.Deferred<Termination>) {
    this.terminated = terminated
  }
  childDown(child: Node, down: Down): void {
    child.retire()
    const reason = down._tag === "Crash" ? down.reason : "it ended"
    Deferred.doneUnsafe(this.terminated, Effect.succeed({ _tag: "GaveUp", reason }))
  }
}

const build = (
  options: ActorSystemOptions<any>,
  context: Context.Context<never>,
  terminated: Deferred.Deferred<Termination>
): { readonly kernel: Kernel; readonly root: Node } => {
  const kernel: Kernel = new Kernel(context, {
    askTimeoutMs: options.askTimeoutMs ?? 5_000,
    interruptGraceMs: options.interruptGraceMs ?? 1_000,
    maximumFencedLives: options.maximumFencedLives ?? 8,
    trace: options.trace,
    spans: options.spans ?? false,
    tooManyFenced: () => {
      const count = kernel.fencedNow
      Deferred.doneUnsafe(terminated, Effect.succeed({ _tag: "TooManyFencedLives", count }))
    }
  })
  return { kernel, root: makeNode(kernel, "", options.root, new Root(terminated)) }
}

const make = <R>(
  options: ActorSystemOptions<R>
): Effect.Effect<ActorSystem, BadSpec | StartFailed, R | Scope.Scope> =>
  Effect.gen(function* () {
    yield* checkSpec(options.root, "")
    const context = yield* Effect.context<R>()
    const terminated = Deferred.makeUnsafe<Termination>()
    const { kernel, root } = build(options, context as Context.Context<never>, terminated)
    const startedMs = kernel.deadlines.now()
    const name = options.name ?? options.root.options.id

    const stop = Effect.callback<void>((resume) => {
      root.stop(true, () => {
        kernel.deadlines.close()
        Deferred.doneUnsafe(terminated, Effect.succeed({ _tag: "Stopped" }))
        resume(Effect.void)
      })
    })
    yield* Effect.addFinalizer(() => stop)

    const failure = yield* Effect.callback<Down | undefined>((resume) => {
      root.begin((down) => resume(Effect.succeed(down)))
    })
    if (failure !== undefined) {
      const reason = failure._tag === "Crash" ? failure.reason : "it ended"
      root.retire()
      return yield* new StartFailed({ path: root.path, reason })
    }
    const system: ActorSystem = {
      name,
      ref: (key) => new NamedAddress(kernel, key.name, undefined) as never,
      refOf: (key, id) => new NamedAddress(kernel, key.name, id) as never,
      restart: (key, reason) => restartNamed(kernel, key, reason),
      deadLetters: kernel.deadLetters,
      totals: kernel.totals,
      publishMetrics: makePublisher(kernel, name),
      inspect: (childLimit = 1_000) =>
        Effect.sync(() => ({
          name,
          at_ms: kernel.wallMs(),
          uptime_ms: kernel.deadlines.now() - startedMs,
          dead_letters: { ...kernel.deadLetters.counts },
          latest_dead_letters: kernel.deadLetters.sampled.map(({ atMs, ...letter }) => ({
            ...letter,
            at_ms: atMs
          })),
          fenced_now: kernel.fencedNow,
          fenced_total: kernel.fencedTotal,
          root: root.inspect({ restarts: 0, degraded: false, lastFailure: undefined }, childLimit)
        })),
      stop,
      terminated: Deferred.await(terminated)
    }
    return system
  })

export const ActorSystem = {
  /**
   * Checks the tree, starts it in order and gives the running system. The Scope's end stops it in reverse order.
   *
   * Fails with `BadSpec` before anything is started, or with `StartFailed` when a vital part failed more often during
   * the start than its supervisor's intensity allows.
   */
  make
}

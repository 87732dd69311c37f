/**
 * The kernel's test kit: one behaviour alone, probes that record messages, and waiting for conditions instead of sleeping.
 *
 * Meant for `it.effect`, which provides TestClock; time moves only where a test moves it.
 */
import { Clock, Effect, Fiber, type Scope } from "effect"
import { TestClock } from "effect/testing"
import type { ActorKey } from "../ActorKey.ts"
import type { ActorRef } from "../ActorRef.ts"
import { ActorSystem, type ActorSystemOptions } from "../ActorSystem.ts"
import { Backoff } from "../Backoff.ts"
import { Behaviour } from "../Behaviour.ts"
import { type AnySpec, ChildSpec, type ChildSpecInput } from "../ChildSpec.ts"
import type { BadSpec, StartFailed } from "../Errors.ts"
import type { AnyRpc, Handlers, Message, NoStreams, Protocol } from "../Protocol.ts"
import { Supervisor } from "../Supervisor.ts"
import type { TraceEvent } from "../Trace.ts"

/** A behaviour running alone. */
export interface Alone<Rpcs extends AnyRpc> {
  readonly ref: ActorRef<Rpcs>
  readonly system: ActorSystem
  /** What happened so far, in order. */
  readonly trace: ReadonlyArray<TraceEvent>
}

/** Options of `TestKit.start`. */
export interface StartOptions<Rpcs extends AnyRpc, R, R2> {
  /** Settings of the child, such as its mailbox. */
  readonly spec?: Omit<ChildSpecInput<Rpcs, R>, "behaviour" | "key" | "id">
  /** Children started before it, such as probes it talks to. */
  readonly beside?: ReadonlyArray<AnySpec<R2>>
  /** Restarts allowed; default 1,000,000, without back-off. */
  readonly intensity?: number
}

/** A stand-in for an actor: it records what it gets and answers as it is told to. */
export interface Probe<Rpcs extends AnyRpc> {
  /** To be placed in the tree of the test. */
  readonly spec: ChildSpec<Rpcs>
  readonly key: ActorKey<Rpcs>
  /** The messages received so far, oldest first. */
  readonly messages: ReadonlyArray<Message<Rpcs>>
  /** Waits until `count` messages have come in and returns them all. */
  receive(count: number): Effect.Effect<ReadonlyArray<Message<Rpcs>>>
}

const patience = 10_000

/** Lets other fibers run until the condition holds; dies with `what` when it never does. No time passes. */
const until = (
  condition: () => boolean | Effect.Effect<boolean>,
  what = "the condition"
): Effect.Effect<void> =>
  Effect.gen(function* () {
    for (let turn = 0; turn < patience; turn++) {
      const now = condition()
      if (typeof now === "boolean" ? now : yield* now) {
        return
      }
      yield* Effect.yieldNow
    }
    return yield* Effect.die(new Error(`waited in vain for ${what}`))
  })

/** Moves virtual time in steps until the condition holds; dies with `what` when `limitMs` have passed. */
const advanceUntil = (
  condition: () => boolean | Effect.Effect<boolean>,
  options: { readonly stepMs: number; readonly limitMs: number; readonly what?: string }
): Effect.Effect<void> =>
  Effect.gen(function* () {
    for (let passed = 0; passed <= options.limitMs; passed += options.stepMs) {
      const now = condition()
      if (typeof now === "boolean" ? now : yield* now) {
        return
      }
      yield* TestClock.adjust(options.stepMs)
    }
    return yield* Effect.die(
      new Error(`waited ${options.limitMs} ms in vain for ${options.what ?? "the condition"}`)
    )
  })

/** Gives every fiber that can run without time passing the chance to do so. */
const settle: Effect.Effect<void> = Effect.gen(function* () {
  for (let turn = 0; turn < 50; turn++) {
    yield* Effect.yieldNow
  }
})

/** Stops a system, moving virtual time as far as busy actors need to be interrupted or abandoned. */
const stop = (system: ActorSystem): Effect.Effect<void> =>
  Effect.gen(function* () {
    const stopping = yield* Effect.forkChild(system.stop)
    yield* settle
    const clock = yield* Effect.service(Clock.Clock)
    while ("adjust" in clock && stopping.pollUnsafe() === undefined) {
      yield* TestClock.adjust(1_000)
      yield* settle
    }
    yield* Fiber.join(stopping)
  })

const make = <R>(
  options: ActorSystemOptions<R>
): Effect.Effect<ActorSystem, BadSpec | StartFailed, R | Scope.Scope> =>
  Effect.tap(ActorSystem.make(options), (system) => Effect.addFinalizer(() => stop(system)))

const start = <Rpcs extends AnyRpc, R, R2 = never>(
  behaviour: Behaviour<Rpcs, R>,
  options: StartOptions<Rpcs, R, R2> = {}
): Effect.Effect<Alone<Rpcs>, BadSpec | StartFailed, R | R2 | Scope.Scope> => {
  const key: ActorKey<Rpcs> = { _tag: "ActorKey", name: "alone", protocol: behaviour.protocol }
  const trace: Array<TraceEvent> = []
  const children: ReadonlyArray<AnySpec<R | R2>> = [
    ...(options.beside ?? []),
    ChildSpec.make({ ...options.spec, key, behaviour })
  ]
  const root = Supervisor.spec({
    id: "test",
    strategy: "one-for-one",
    intensity: options.intensity ?? 1_000_000,
    backoff: Backoff.none,
    children
  })
  return Effect.map(make<R | R2>({ root, trace: (event) => trace.push(event) }), (system) => ({
    ref: system.ref(key),
    system,
    trace
  }))
}

const probe = <Rpcs extends AnyRpc>(
  key: ActorKey<Rpcs>,
  answers: Partial<Handlers<Rpcs>> = {}
): Probe<Rpcs> => {
  const messages: Array<Message<Rpcs>> = []
  const handlers: Record<string, (request: never) => Effect.Effect<unknown, unknown>> = {}
  for (const tag of key.protocol.requests.keys()) {
    const answer = (answers as typeof handlers)[tag]
    handlers[tag] = (request: { readonly payload: unknown }) => {
      messages.push([tag, request.payload] as never)
      return answer === undefined ? Effect.void : answer(request as never)
    }
  }
  const behaviour = Behaviour.make(key.protocol as Protocol<Rpcs> & NoStreams<Rpcs>, () =>
    Effect.succeed(handlers as unknown as Handlers<Rpcs>)
  )
  return {
    key,
    spec: ChildSpec.make({ key, behaviour }) as ChildSpec<Rpcs>,
    messages,
    receive: (count) =>
      Effect.as(
        until(() => messages.length >= count, `${count} messages at the probe ${key.name}`),
        messages
      )
  }
}

export const TestKit = {
  /** Runs one behaviour alone under a supervisor that restarts it at once, and records the trace. */
  start,
  /** Makes a recording stand-in for the actor a key names; messages without an answer are answered with nothing. */
  probe,
  /**
   * `ActorSystem.make` for tests: when the Scope ends, virtual time moves on as far as the shutdown time-outs of busy actors
   * ask for. With the plain one, a test that ends while a handler sleeps under TestClock would never end.
   */
  make,
  /** Stops a system in the same way. */
  stop,
  until,
  advanceUntil,
  settle
}

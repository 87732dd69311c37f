/**
 * Behaviours: what an actor does, without where it stands or how it is supervised.
 */
import type { Effect, Exit, Scope } from "effect"
import type { ActorKey, DynamicKey } from "./ActorKey.ts"
import type { ActorRef } from "./ActorRef.ts"
import type { ChildSpec } from "./ChildSpec.ts"
import type { SpawnError } from "./Errors.ts"
import type { AnyRpc, Handlers, HandlersServices, Message, NoStreams, Protocol } from "./Protocol.ts"

/**
 * What one life of an actor has of the kernel.
 */
export interface ActorContext<Rpcs extends AnyRpc> {
  /** The actor's own address. */
  readonly self: ActorRef<Rpcs>
  /** Its place in the tree. */
  readonly path: string
  /** Which life this is, from 1. */
  readonly life: number
  /** The address a key names; bound at the first send, so order of start does not matter. */
  ref<R2 extends AnyRpc>(key: ActorKey<R2>): ActorRef<R2>
  /** The address of the child `id` of a dynamic supervisor; a send starts the child if it is not running. */
  refOf<R2 extends AnyRpc>(key: DynamicKey<R2>, id: string): ActorRef<R2>
  /** Starts a temporary child that is stopped with this life at the latest; resolves when its factory has run. */
  spawn<R2 extends AnyRpc, R>(spec: ChildSpec<R2, R>): Effect.Effect<ActorRef<R2>, SpawnError, R>
  /**
   * Runs long work in the life's Scope. Its exit comes back as the message `onExit` makes of it, even when the mailbox
   * is full; nothing comes back once this life has ended.
   */
  startTask<A, E, R>(
    task: Effect.Effect<A, E, R>,
    onExit: (exit: Exit.Exit<A, E>) => Message<Rpcs>
  ): Effect.Effect<void, never, R>
  /**
   * Crashes the current life of another actor, bypassing its mailbox, as a watchdog does with one that hangs: the handler in
   * hand is interrupted, and abandoned if it does not heed. Its supervisor does the rest. False when it has no life.
   */
  restart(key: ActorKey<any>, reason: string): Effect.Effect<boolean>
  /** Ends this life normally once the message in hand is answered. A permanent child is started again. */
  readonly stopSelf: Effect.Effect<void>
  /** Says "I am alive" from long waiting; the age of the last beat is shown by inspection. */
  readonly beat: Effect.Effect<void>
  /** Gives the handlers their types; returns them unchanged. */
  handlers<const H extends Handlers<Rpcs, any>>(handlers: H): H
}

/** A behaviour that speaks `Rpcs` and needs the services `R`. */
export interface Behaviour<Rpcs extends AnyRpc, out R = never> {
  readonly _tag: "Behaviour"
  readonly protocol: Protocol<Rpcs>
  readonly build: (
    context: ActorContext<Rpcs>
  ) => Effect.Effect<Handlers<Rpcs, any>, unknown, R | Scope.Scope>
}

/**
 * Makes a behaviour from a factory: an Effect that builds fresh state and returns one handler per message.
 *
 * The factory runs once per life, inside the life's Scope: what it acquires is released when the life ends. A typed
 * failure or a defect of the factory is a failed start and counts as a restart. A missing handler or an error the
 * protocol does not declare does not compile.
 */
export const Behaviour = {
  make: <Rpcs extends AnyRpc, H extends Handlers<Rpcs, any>, E, R>(
    protocol: Protocol<Rpcs> & NoStreams<Rpcs>,
    build: (context: ActorContext<Rpcs>) => Effect.Effect<H, E, R>
  ): Behaviour<Rpcs, Exclude<R | HandlersServices<H>, Scope.Scope>> => ({
    _tag: "Behaviour",
    protocol,
    build: build as never
  })
}

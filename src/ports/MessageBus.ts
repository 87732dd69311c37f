/**
 * An agent's way to the MQTT broker. Where the broker is may change, so it is found anew for each connection; one connection
 * is one session of the agent.
 */
import type { Effect, Scope } from "effect"
import { Context, Schema } from "effect"

/** The broker was not found or reached, turned the agent away, or went away. */
export class BusError extends Schema.TaggedError<BusError>()("BusError", {
  /**
   * `none`: the server says that there is no broker. `refused`: the broker does not take these credentials, or this
   * publication. `unreachable`: anything on the way to it.
   */
  code: Schema.Literals(["none", "refused", "unreachable"]),
  reason: Schema.String
}) {
  override get message(): string {
    return `the MQTT broker: ${this.reason}`
  }
}

export interface BusMessage {
  readonly topic: string
  readonly payload: Uint8Array
  /** Kept by the broker for those who come later. */
  readonly retained: boolean
}

/** Why something that came was not taken. */
export interface NotTaken {
  readonly message: string
  /** It stays with the broker: there is no room for it now, or nobody any more to take it. */
  readonly isLeft: boolean
}

export interface BusOptions {
  readonly name: string
  /**
   * For a broker that takes an agent's signed proof in the place of a password. Asked for when the way to the broker stands,
   * which may take minutes: a proof that is older than the broker's life is good for nothing.
   */
  readonly password: Effect.Effect<Uint8Array>
  /** What the broker publishes when the connection breaks. */
  readonly will: { readonly topic: string; readonly payload: Uint8Array }
  /**
   * Takes what comes, one after the other; it is acknowledged when this has succeeded. Where it fails and is left with the
   * broker, the connection goes on, for what else comes must not wait; when there is room again the connection ends, since
   * only with the next one does the broker bring again what was left. Any other failure ends the connection at once.
   */
  readonly received: (message: BusMessage) => Effect.Effect<void, NotTaken>
  /** Whether there is room for what was left. Asked now and then, since something was. */
  readonly hasRoom: Effect.Effect<boolean>
}

/** An open connection. */
export interface BusLink {
  /** Ends when the broker has acknowledged it. */
  readonly publish: (
    topic: string,
    payload: Uint8Array,
    options?: { readonly retain?: boolean }
  ) => Effect.Effect<void, BusError>
  /** Subscribes; gives the filters that the broker does not let this agent read. */
  readonly subscribe: (filters: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<string>, BusError>
  /** Leaves cleanly: the broker publishes no will. */
  readonly leave: Effect.Effect<void>
  /** Ends when the connection has, with the reason. */
  readonly ended: Effect.Effect<string>
}

/** A broker as it was found. */
export interface BusDoor {
  /** Below which all topics are. */
  readonly topicRoot: string
  /** Connects, for as long as the scope is open. What waits in the session may come at once. */
  readonly connect: (options: BusOptions) => Effect.Effect<BusLink, BusError, Scope.Scope>
}

export class MessageBus extends Context.Service<
  MessageBus,
  {
    readonly find: Effect.Effect<BusDoor, BusError>
  }
>()("postern/ports/MessageBus") {}

/**
 * The MQTT broker, as broker services see it: embedded in the server, or another program. It carries; who may do what it
 * is told.
 */
import type { Effect, Scope } from "effect"
import { Context, Schema } from "effect"
import type { DeviceId } from "../schemas/Ids.ts"
import type { TopicRole } from "../schemas/TopicRights.ts"
import type { AgentName } from "../schemas/Topics.ts"

/** The broker could not be opened or does not answer. */
export class BrokerError extends Schema.TaggedError<BrokerError>()("BrokerError", {
  reason: Schema.String
}) {
  override get message(): string {
    return `the MQTT broker: ${this.reason}`
  }
}

/** Something that was published to a topic of broker services. */
export interface Publication {
  /**
   * Who sent it: the embedded broker knows by credentials, or by whose will it was. A broker that tells of no senders
   * leaves what the publication claims, so its signature must be judged by that name's key.
   */
  readonly from: AgentName
  readonly role: TopicRole
  readonly topic: string
  readonly payload: Uint8Array
}

/** Why a connection or a publication was turned away by the broker itself. */
export type BrokerRefusal =
  | "not_permitted"
  | "too_large"
  | "bad_credentials"
  | "too_many"
  /** It names no sender that could be, and the broker cannot tell. */
  | "malformed"
  | "unknown_sender"
  | "overloaded"

/** What the broker asks and tells. */
export interface BrokerHandlers {
  /** Judges the credentials of a connection: what it may do, or null. */
  readonly authenticate: (name: AgentName, password: Uint8Array) => Effect.Effect<TopicRole | null>
  /**
   * Takes a publication for broker services. It is acknowledged to its sender when this has succeeded, whatever was made of
   * it; where it fails it is not, and comes again.
   */
  readonly received: (publication: Publication) => Effect.Effect<void, { readonly message: string }>
  /** A connection stands, or has ended; as whose, where the broker knows. */
  readonly presence: (name: AgentName, connected: boolean, role?: TopicRole) => Effect.Effect<void>
  readonly refused: (name: AgentName | null, reason: BrokerRefusal) => Effect.Effect<void>
}

/** An open broker. */
export interface OpenBroker {
  /** Where agents reach it: `mqtt://host:port`, `ws://host:port`. */
  readonly addresses: ReadonlyArray<string>
  /**
   * Publishes with QoS 1. Ends when every session that takes it has it safe; `false` when there was none, and nobody will
   * ever get it. What is fleeting (QoS 0) is for those who are there now, and waits in no session's queue; whether anybody
   * was, not every broker knows.
   */
  readonly publish: (
    topic: string,
    payload: Uint8Array,
    options?: { readonly retain?: boolean; readonly fleeting?: boolean }
  ) => Effect.Effect<boolean, BrokerError>
  /**
   * The password that an accepted device must come with under this name, made where it has none yet; null where its signed
   * proof is the password.
   */
  readonly passwordFor: (name: AgentName, device: DeviceId) => Effect.Effect<string | null, BrokerError>
  /** Cuts an agent off at once and forgets its session, password, subscriptions, queue and will. */
  readonly expel: (name: AgentName) => Effect.Effect<void, BrokerError>
  /** Who is connected now. */
  readonly connected: Effect.Effect<ReadonlyArray<string>>
  /** Ends when the broker is gone, with the reason. */
  readonly ended: Effect.Effect<string>
}

export class MessageBroker extends Context.Service<
  MessageBroker,
  {
    /** Opens it for as long as the scope is open. */
    readonly open: (handlers: BrokerHandlers) => Effect.Effect<OpenBroker, BrokerError, Scope.Scope>
  }
>()("postern/ports/MessageBroker") {}

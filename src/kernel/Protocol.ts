/**
 * Types that read a protocol: a group of messages declared once with `Rpc.make` and `RpcGroup.make`.
 *
 * A protocol is data and belongs to the receiver. It carries no device or agent id: that is the address. Streaming
 * messages (`stream: true`) are refused by the type `NoStreams`, since a reply is exactly one value.
 */
import type { Effect } from "effect"
import type { Rpc, RpcGroup } from "effect/rpc"
import type { ActorRef, AskOptions } from "./ActorRef.ts"
import type { AskError } from "./Errors.ts"

/** Any protocol, its messages forgotten. */
export type AnyRpc = Rpc.Any

/** A protocol of the messages `Rpcs`. */
export type Protocol<Rpcs extends AnyRpc> = RpcGroup.RpcGroup<Rpcs>

/** The one message of `Rpcs` named `Tag`. */
export type MessageOf<Rpcs extends AnyRpc, Tag extends Rpcs["_tag"]> = Extract<Rpcs, { readonly _tag: Tag }>

/** Payload of the message `Tag`. */
export type PayloadOf<Rpcs extends AnyRpc, Tag extends Rpcs["_tag"]> = Rpc.Payload<MessageOf<Rpcs, Tag>>

/** Success value of the message `Tag`. */
export type SuccessOf<Rpcs extends AnyRpc, Tag extends Rpcs["_tag"]> = Rpc.Success<MessageOf<Rpcs, Tag>>

/** Declared error of the message `Tag`. */
export type ErrorOf<Rpcs extends AnyRpc, Tag extends Rpcs["_tag"]> = Rpc.Error<MessageOf<Rpcs, Tag>>

/** A message as data: tag and payload. The payload may be left out where it is `void`. */
export type Message<Rpcs extends AnyRpc> = {
  readonly [Current in Rpcs as Current["_tag"]]: [Rpc.Payload<Current>] extends [void]
    ? readonly [tag: Current["_tag"], payload?: Rpc.Payload<Current>]
    : readonly [tag: Current["_tag"], payload: Rpc.Payload<Current>]
}[Rpcs["_tag"]]

/** Arguments after the tag of a tell: the payload, optional where it is `void`. */
export type TellArguments<Payload> = [Payload] extends [void] ? [payload?: Payload] : [payload: Payload]

/** Arguments after the tag of an ask: the payload (optional where it is `void`) and options. */
export type AskArguments<Payload> = [Payload] extends [void]
  ? [payload?: Payload, options?: AskOptions]
  : [payload: Payload, options?: AskOptions]

type HasStream<Rpcs extends AnyRpc> = Rpcs extends AnyRpc ? Rpc.IsStream<Rpcs, Rpcs["_tag"]> : never

/** `unknown` for a group without streaming messages; otherwise an unsatisfiable type that names the offence. */
export type NoStreams<Rpcs extends AnyRpc> =
  true extends HasStream<Rpcs>
    ? { readonly "streaming messages are not supported by the kernel": never }
    : unknown

/**
 * What a handler receives: the payload, and the way to ask others on behalf of this message.
 */
export interface Request<Payload> {
  /** The message's name. */
  readonly tag: string
  readonly payload: Payload
  /** Monotonic milliseconds at which the asker gives up; `Infinity` for a told message. */
  readonly deadlineMs: number
  /** Milliseconds left until `deadlineMs`, never negative; `Infinity` for a told message. */
  readonly remainingMs: Effect.Effect<number>
  /**
   * Ask another actor as part of handling this message: the deadline is inherited (the earlier of the two holds) and
   * a ring of waiting actors fails at once with `AskCycle`.
   */
  ask<Rpcs extends AnyRpc, const Tag extends Rpcs["_tag"]>(
    ref: ActorRef<Rpcs>,
    tag: Tag,
    ...args: AskArguments<PayloadOf<Rpcs, Tag>>
  ): Effect.Effect<SuccessOf<Rpcs, Tag>, ErrorOf<Rpcs, Tag> | AskError>
}

/** One handler per message of a protocol. */
export type Handlers<Rpcs extends AnyRpc, R = never> = {
  readonly [Current in Rpcs as Current["_tag"]]: (
    request: Request<Rpc.Payload<Current>>
  ) => Effect.Effect<Rpc.Success<Current>, Rpc.Error<Current>, R>
}

/** The services that the handlers `H` need. */
export type HandlersServices<H> = {
  readonly [Tag in keyof H]: H[Tag] extends (...args: never) => Effect.Effect<infer _A, infer _E, infer R>
    ? R
    : never
}[keyof H]

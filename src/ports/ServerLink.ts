/**
 * The way from a device to its server. One method per endpoint of `schemas/DeviceApi`. An adapter signs every request,
 * checks every signed answer (server role of the root it is given, nonce, digest) and turns what fails into an error;
 * actors see verified answers only. Every call ends within its own time limit.
 */
import type { Effect, Stream } from "effect"
import { Context, Schema } from "effect"
import type {
  BlockAnswer,
  EnrolmentAnswer,
  PollAnswer,
  PollRequest,
  ProgressReport,
  ReceiptAcknowledgement,
  ReceiptDelivery,
  RootChain
} from "../schemas/DeviceApi.ts"
import { DeviceApiErrorCode } from "../schemas/DeviceApi.ts"
import type { DsseEnvelope } from "../schemas/Dsse.ts"
import type { ServerIdentity } from "../schemas/Enrolment.ts"
import type { HealthReport } from "../schemas/Health.ts"
import type { Digest, OrderId, ServerId } from "../schemas/Ids.ts"
import type { MessagingOffer } from "../schemas/MessagingOffer.ts"
import { RouteFailure } from "../schemas/RouteFailure.ts"
import type { TrustRoot } from "../schemas/TrustRoot.ts"

/**
 * The server was not reached: no route, refused, timed out, cut off, or turned away by what stands before it. Worth trying
 * again later; not before `retryAfterMs`, where whoever answered named a time (unsigned, so bounded).
 */
export class ServerUnreachable extends Schema.TaggedError<ServerUnreachable>()("ServerUnreachable", {
  address: Schema.String,
  reason: Schema.String,
  retryAfterMs: Schema.optionalKey(Schema.Finite),
  /** What failed on the way, where Tor or a proxy tells. */
  code: Schema.optionalKey(RouteFailure)
}) {
  override get message(): string {
    return `${this.address} was not reached: ${this.reason}`
  }
}

/** The server answered with a signed refusal. `retryAfterMs` when it named a time. */
export class ServerRefused extends Schema.TaggedError<ServerRefused>()("ServerRefused", {
  code: DeviceApiErrorCode,
  message: Schema.String,
  retryAfterMs: Schema.NullOr(Schema.Finite)
}) {}

/** What answered is not our server, or something changed its answer: unsigned, wrong signer, nonce, digest or shape. */
export class ServerUntrusted extends Schema.TaggedError<ServerUntrusted>()("ServerUntrusted", {
  address: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `What answered at ${this.address} is not trusted: ${this.reason}`
  }
}

export type LinkError = ServerUnreachable | ServerRefused | ServerUntrusted

/** Whom to talk to: the newest verified root and the server in it. Set by the trust keeper as roots are accepted. */
export interface ServerTrust {
  readonly root: TrustRoot
  readonly server: ServerId
}

/**
 * A verified answer and the server's time in it (ms since the epoch). The device's clock takes it in: the statement
 * echoes a nonce the device made for this very request.
 */
export interface Answer<A> {
  readonly body: A
  readonly serverTimeMs: number
  /** Newest root version the server holds; null before it has a root. A falling one is refused by the adapter. */
  readonly rootVersion: number | null
}

/** How a part of a payload comes. */
export interface PayloadWay {
  /** Before which byte it ends; the payload's end where it is absent. A server may send more. */
  readonly until?: number
  /** Requests with the same tag share a circuit through Tor; a new tag takes a fresh one. */
  readonly circuit?: string
}

export class ServerLink extends Context.Service<
  ServerLink,
  {
    /** Unsigned, before there is trust: whom the address claims to be. */
    readonly identity: Effect.Effect<ServerIdentity, LinkError>
    /** Unsigned; the roots prove themselves. At most 16 a call, rising from `from`. */
    readonly roots: (from: number) => Effect.Effect<RootChain, LinkError>
    /** Whom to trust from now on. Before it is set, only `identity` and `roots` work. */
    readonly trust: (trust: ServerTrust) => Effect.Effect<void>
    readonly enrol: (request: DsseEnvelope) => Effect.Effect<Answer<EnrolmentAnswer>, LinkError>
    readonly poll: (request: PollRequest) => Effect.Effect<Answer<PollAnswer>, LinkError>
    /** Ciphertext of a payload from `offset` on, as it comes. A server that lacks it answers `not_found`. */
    readonly payload: (
      digest: Digest,
      offset: number,
      way?: PayloadWay
    ) => Stream.Stream<Uint8Array, LinkError>
    /**
     * Whether a request goes through Tor now, so that those with different circuits go different ways. Elsewhere a payload
     * comes no faster in parts.
     */
    readonly hasCircuits: Effect.Effect<boolean>
    readonly progress: (report: ProgressReport) => Effect.Effect<Answer<unknown>, LinkError>
    readonly output: (
      order: OrderId,
      sequence: number,
      chunk: Uint8Array
    ) => Effect.Effect<Answer<unknown>, LinkError>
    /** A block of the artifacts file of `totalBytes` at `offset`; the answer says how much the server has. */
    readonly artifacts: (
      order: OrderId,
      offset: number,
      totalBytes: number,
      block: Uint8Array
    ) => Effect.Effect<Answer<BlockAnswer>, LinkError>
    readonly receipts: (delivery: ReceiptDelivery) => Effect.Effect<Answer<ReceiptAcknowledgement>, LinkError>
    readonly health: (report: HealthReport) => Effect.Effect<Answer<unknown>, LinkError>
    /**
     * Where the MQTT broker is; a broker at the server's own address has the full address that answered now. Refused with
     * `no_messaging` where there is none.
     */
    readonly messaging: Effect.Effect<Answer<MessagingOffer>, LinkError>
  }
>()("postern/ports/ServerLink") {}

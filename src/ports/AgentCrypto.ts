/** An agent's own keys at work; no actor ever holds a private key. */
import type { Effect } from "effect"
import { Context } from "effect"
import type { Judged, SealHeader } from "../crypto/Messages.ts"
import type { Receiver } from "../crypto/Reception.ts"
import type { SignedJson, Unsigned } from "../crypto/SignedJson.ts"
import type { Agreement } from "../schemas/Agents.ts"
import type { SigningKey } from "../schemas/Ids.ts"
import type { Message, Sealed } from "../schemas/Message.ts"

export class AgentCrypto extends Context.Service<
  AgentCrypto,
  {
    readonly signingKey: SigningKey
    /** The key others seal to now. */
    readonly agreement: Effect.Effect<Agreement>
    readonly sign: <A extends SignedJson>(unsigned: Unsigned<A>) => Effect.Effect<A>
    /** Seals a document to a raw X25519 key (base64), and signs the outside. */
    readonly seal: (
      header: SealHeader,
      document: Message,
      recipientKey: string
    ) => Effect.Effect<Judged<Sealed>>
    /** Judges and opens what came into an inbox. */
    readonly receive: (
      receiver: Omit<Receiver, "agreements">,
      inbox: "protected" | "private",
      wire: Uint8Array,
      nowMs: number
    ) => Effect.Effect<Judged<Message>>
  }
>()("postern/ports/AgentCrypto") {}

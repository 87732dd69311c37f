/**
 * Messages between agents: signed, sealed, opened and judged. Everything here is a pure function; who may write to whom,
 * and which ids were seen before, is for others to say.
 *
 * @module
 */
import { Result, Schema } from "effect"
import { Delivery, Message, MessageLimits, MessageRefusal, Sealed } from "../schemas/Message.ts"
import { decodeBase64, encodeBase64 } from "./Base64.ts"
import { fromUtf8 } from "./Bytes.ts"
import { canonicalBytes } from "./CanonicalJson.ts"
import type { Engine } from "./Engine.ts"
import { type HpkeBinding, type HpkeKeyPair, openHpke, sealHpke } from "./Hpke.ts"
import { isSignedByItsKey, type JsonSigner, readerOf, type SignedJson, signJson } from "./SignedJson.ts"

/** A message was refused. `code` is counted; `detail` is for people, and may quote untrusted text. */
export class RefusedMessage extends Schema.TaggedError<RefusedMessage>()("RefusedMessage", {
  code: MessageRefusal,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.code}: ${this.detail}`
  }
}

export type Judged<A> = Result.Result<A, RefusedMessage>

const refuse = (code: MessageRefusal, detail: string) => Result.fail(new RefusedMessage({ code, detail }))

/** Checks that a document is signed, and by the key that its sender is known to have. */
export const checkSigner = <A extends SignedJson>(
  engine: Engine,
  document: A,
  knownKey: string
): Judged<A> => {
  if (document.signing_key !== knownKey)
    return refuse("bad_signature", "it is signed with another key than its sender's")
  return isSignedByItsKey(engine, document)
    ? Result.succeed(document)
    : refuse("bad_signature", "its signature does not fit")
}

/** Checks the times a message names. A skew of the sender's clock is forgiven at its start, never at its end. */
export const checkTimes = (
  { expires_at_ms, issued_at_ms }: Pick<Message, "issued_at_ms" | "expires_at_ms">,
  nowMs: number,
  futureMs: number = MessageLimits.futureMs
): Judged<void> => {
  if (expires_at_ms - issued_at_ms > MessageLimits.lifetimeMs)
    return refuse("lives_too_long", `it would live for ${expires_at_ms - issued_at_ms} ms`)
  if (issued_at_ms > nowMs + futureMs)
    return refuse("from_the_future", `it is dated ${issued_at_ms - nowMs} ms ahead`)
  if (expires_at_ms <= nowMs) return refuse("expired", `it expired ${nowMs - expires_at_ms} ms ago`)
  return Result.succeed(undefined)
}

const readAs = <A>(schema: Schema.Codec<A, unknown>, maximumBytes: number, maximumDepth: number) => {
  const read = readerOf(schema, { maximumBytes, maximumDepth })
  return (bytes: Uint8Array): Judged<A> =>
    bytes.length > maximumBytes
      ? refuse("too_large", `it has ${bytes.length} bytes, at most ${maximumBytes} are taken`)
      : Result.mapError(read(bytes), (detail) => new RefusedMessage({ code: "malformed", detail }))
}

/** A message is an object around its body. What broker services take must fit into what they make of it. */
const messageDepth = 1 + MessageLimits.bodyDepth

/** Reads what is told to be signed; of its signature nothing is known yet. Never throws. */
export const readMessage = readAs(Message, MessageLimits.messageBytes, messageDepth)
export const readSealed = readAs(Sealed, MessageLimits.wireBytes, 1)
export const readDelivery = readAs(Delivery, MessageLimits.wireBytes, 1 + messageDepth)

/** Whether what was sealed says of itself what its outside said: else one name would stand for two messages. */
export const checkInside = (
  sealed: Pick<Sealed, "id" | "issued_at_ms" | "expires_at_ms">,
  message: Message
): Judged<Message> =>
  message.id === sealed.id &&
  message.issued_at_ms === sealed.issued_at_ms &&
  message.expires_at_ms === sealed.expires_at_ms
    ? Result.succeed(message)
    : refuse("malformed", "its inside has another id, beginning or end than its outside")

/** What both sides bind into a sealed document: who, to whom and to which key; then all else but the box itself. */
export const bindingOf = (header: Omit<Sealed, "enc" | "ciphertext" | "signature">): HpkeBinding => {
  const { from, recipient_key, to } = header
  return { info: canonicalBytes(["postern/sealed/v1", from, to, recipient_key]), aad: canonicalBytes(header) }
}

/** Where a document is sealed to, and under which name. */
export type SealHeader = Pick<Sealed, "id" | "level" | "from" | "to" | "issued_at_ms" | "expires_at_ms">

/** Seals a document to a raw X25519 key (base64) and signs the outside. `entropy`: 32 fresh secret bytes. */
export const sealMessage = (
  engine: Engine,
  signer: JsonSigner,
  header: SealHeader,
  document: unknown,
  recipientKey: string,
  entropy: Uint8Array
): Judged<Sealed> => {
  const key = decodeBase64(recipientKey)
  const open = {
    type: "postern/sealed/v1" as const,
    ...header,
    recipient_key: recipientKey,
    signing_key: signer.signingKey
  } as Omit<Sealed, "enc" | "ciphertext" | "signature">
  const box =
    key === undefined ? undefined : sealHpke(engine, key, bindingOf(open), canonicalBytes(document), entropy)
  if (box === undefined) return refuse("unknown_recipient", "the recipient's key is none to seal to")
  const { signing_key: _, ...unsigned } = open
  return Result.succeed(
    signJson<Sealed>(engine, signer, {
      ...unsigned,
      enc: encodeBase64(box.enc),
      ciphertext: encodeBase64(box.ciphertext)
    })
  )
}

/** The plaintext of a sealed document whose signature was checked. `keyFor` gives the pair of a public key, or undefined. */
export const openSealed = (
  engine: Engine,
  keyFor: (recipientKey: string) => HpkeKeyPair | undefined,
  sealed: Sealed
): Judged<Uint8Array> => {
  const keys = keyFor(sealed.recipient_key)
  if (keys === undefined) return refuse("not_for_this_key", "it is sealed to a key that is not ours any more")
  const { ciphertext, enc, signature: _, ...header } = sealed
  const box = { enc: decodeBase64(enc), ciphertext: decodeBase64(ciphertext) }
  const plaintext =
    box.enc === undefined || box.ciphertext === undefined
      ? undefined
      : openHpke(engine, keys, bindingOf(header), { enc: box.enc, ciphertext: box.ciphertext })
  return plaintext === undefined
    ? refuse("not_opened", "it does not open: it, its sender, recipient or key was changed")
    : Result.succeed(plaintext)
}

/** Objects and arrays that stand in each other, at the most; 0 for a plain value. Of a value that JSON can hold. */
const depthOf = (value: unknown): number => {
  if (typeof value !== "object" || value === null) return 0
  let deepest = 0
  for (const member of Object.values(value)) deepest = Math.max(deepest, depthOf(member))
  return 1 + deepest
}

/** Why a body cannot go into a message. */
export interface BodyFlaw {
  readonly kind: "size" | "form"
  readonly reason: string
}

const flawed = (kind: BodyFlaw["kind"], reason: string) => Result.fail({ kind, reason })

/** A body as it will be read: what a value makes of itself (`toJSON`) counts, not what it is. */
export const plainBody = (body: unknown): Result.Result<Message["body"], BodyFlaw> => {
  try {
    const bytes = canonicalBytes(body)
    const { bodyBytes, bodyDepth } = MessageLimits
    if (bytes.length > bodyBytes)
      return flawed("size", `the body has ${bytes.length} bytes, at most ${bodyBytes} are taken`)
    const plain = JSON.parse(fromUtf8(bytes) ?? "") as Message["body"]
    const depth = depthOf(plain)
    return depth > bodyDepth
      ? flawed("form", `the body is nested ${depth} deep, at most ${bodyDepth} are taken`)
      : Result.succeed(plain)
  } catch (error) {
    return flawed("form", error instanceof Error ? error.message : String(error))
  }
}

/** Why a body cannot go into a message; undefined where it can. */
export const bodyFlaw = (body: unknown): BodyFlaw | undefined => {
  const plain = plainBody(body)
  return Result.isFailure(plain) ? plain.failure : undefined
}

/** The bytes that travel. */
export const toWire = (document: SignedJson): Uint8Array => canonicalBytes(document)

// Test vectors of messaging, from fixed seeds: see docs/protocol.md. Whichever engine makes them, they are the same.

import { Result } from "effect"
import { encodeBase64 } from "../../src/crypto/Base64.ts"
import { canonicalBytes } from "../../src/crypto/CanonicalJson.ts"
import type { Engine } from "../../src/crypto/Engine.ts"
import { encodeHex } from "../../src/crypto/Hex.ts"
import { hpkeKeys } from "../../src/crypto/Hpke.ts"
import { deriveId } from "../../src/crypto/IdentityKeys.ts"
import { bindingOf, sealMessage } from "../../src/crypto/Messages.ts"
import { type JsonSigner, type SignedJson, signJson } from "../../src/crypto/SignedJson.ts"
import type { Message, Sealed } from "../../src/schemas/Message.ts"
import { type AgentName, brokerServices } from "../../src/schemas/Topics.ts"

/** Somebody whose keys are in the vectors. */
export interface Party {
  readonly name: AgentName
  readonly id: string
  readonly signer: JsonSigner
  readonly agreementSecret: Uint8Array
  readonly agreementKey: string
}

/** A document that was signed: its members but `signing_key` and `signature`, and the bytes that travel. */
export interface Made {
  readonly name: string
  readonly signer: string
  readonly document: unknown
  readonly wire: string
}

/** Something that came, and what is to be made of it. */
export interface Judged {
  readonly name: string
  /** Broker services, an agent, or whoever reads a document of this kind. */
  readonly by: "broker_services" | "agent" | "reader"
  /** Of `reader`. */
  readonly kind?: "connect" | "handshake" | "answer" | "status" | "ping" | "directory"
  readonly inbox?: "protected" | "private"
  /** Whom the broker says it is from. */
  readonly from?: string
  /** Whose inbox it came to. */
  readonly agent?: string
  readonly now_ms?: number
  /** Text, or pieces of it with how often each is repeated. */
  readonly wire: string | ReadonlyArray<readonly [text: string, times: number]>
  /** `taken`, or the code of the refusal. */
  readonly verdict: string
  /** What an application gets. */
  readonly message?: unknown
}

export const nowMs = 1_800_000_000_000
export const text = (value: unknown): string => new TextDecoder().decode(canonicalBytes(value))
const bytesOf = (engine: Engine, label: string): Uint8Array =>
  engine.sha256(new TextEncoder().encode(`postern test vector: ${label}`))
/** 26 characters of base32 that follow from a label. */
export const idFrom = (engine: Engine, label: string): string =>
  [...bytesOf(engine, label).subarray(0, 26)]
    .map((byte) => "abcdefghijklmnopqrstuvwxyz234567"[byte & 31])
    .join("")
    // The last of 26 characters holds three bits of 128.
    .replace(/.$/, "a")

const partyOf = (engine: Engine, name: string): Party => {
  const seed = bytesOf(engine, `${name}, signing seed`)
  const publicKey = engine.ed25519.publicKey(seed)
  const agreementSecret = bytesOf(engine, `${name}, agreement secret`)
  const agreement = engine.x25519.publicKey(agreementSecret)
  const kind = name === brokerServices ? "broker-services" : "device"
  return {
    name: name as AgentName,
    id: deriveId(engine, kind, publicKey, agreement),
    signer: { seed, signingKey: encodeBase64(publicKey) },
    agreementSecret,
    agreementKey: encodeBase64(agreement)
  }
}

/** Everybody, and the tools to write with. */
export const makeWorkshop = (engine: Engine) => {
  const parties = Object.fromEntries(
    ["alice", "bob", "carol", "mallory", brokerServices].map((name) => [name, partyOf(engine, name)])
  ) as Record<string, Party>
  const party = (name: string): Party => parties[name] as Party
  const sign = (signer: string, document: object): string =>
    text(signJson<SignedJson>(engine, party(signer).signer, document as never))
  return {
    engine,
    party,
    sign,
    serverId: deriveId(engine, "server", bytesOf(engine, "a server's key"), bytesOf(engine, "and its other")),
    id: (label: string) => idFrom(engine, label),
    made: (name: string, signer: string, document: object): Made => ({
      name,
      signer,
      document,
      wire: sign(signer, document)
    }),
    keys: Object.values(parties).map(({ agreementKey, agreementSecret, id, name, signer }) => ({
      name,
      id,
      signing_seed: encodeHex(signer.seed),
      signing_key: signer.signingKey,
      agreement_secret: encodeHex(agreementSecret),
      agreement_key: agreementKey
    }))
  }
}
export type Workshop = ReturnType<typeof makeWorkshop>

/** The members of a message between the type and the key; what differs is given. */
export const messageOf = (shop: Workshop, more: Partial<Message>) => ({
  type: "postern/message/v1",
  id: shop.id("a message"),
  level: "protected",
  from: "alice",
  to: ["bob"],
  issued_at_ms: nowMs - 5_000,
  expires_at_ms: nowMs + 3_600_000,
  subject: "readings",
  body: { celsius: 21.5, sensor: "roof" },
  ...more
})

/** What is sealed, with everything on the way. `inside` is text. */
export const seal = (
  shop: Workshop,
  signer: string,
  inside: string,
  recipient: string,
  header: Partial<Sealed>
): { readonly wire: string; readonly vector: (name: string) => unknown } => {
  const { engine, party } = shop
  const document = JSON.parse(inside) as Message
  const { expires_at_ms, id, issued_at_ms } = document
  const open = {
    id,
    level: "private" as const,
    from: party(signer).name,
    to: party(recipient).name,
    issued_at_ms,
    expires_at_ms,
    ...header
  }
  const entropy = bytesOf(engine, `ephemeral secret for ${recipient}: ${inside}`)
  const recipientKey = party(recipient).agreementKey
  const signed = sealMessage(engine, party(signer).signer, open, document, recipientKey, entropy)
  const sealed = Result.getOrThrow(signed)
  const { ciphertext: _box, enc: _enc, signature: _signature, ...bound } = sealed
  const binding = bindingOf(bound)
  const enc = engine.x25519.publicKey(entropy)
  const recipientPublic = engine.x25519.publicKey(party(recipient).agreementSecret)
  const agreed = engine.x25519.sharedSecret(entropy, recipientPublic) as Uint8Array
  const keys = hpkeKeys(engine, agreed, enc, recipientPublic, binding.info)
  const wire = text(sealed)
  const vector = (name: string) => ({
    name,
    signer,
    recipient,
    header: open,
    plaintext: inside,
    ephemeral_secret: encodeHex(entropy),
    enc: encodeHex(enc),
    info: new TextDecoder().decode(binding.info),
    aad: new TextDecoder().decode(binding.aad),
    shared_secret: encodeHex(keys.shared),
    key: encodeHex(keys.key),
    nonce: encodeHex(keys.nonce),
    wire
  })
  return { wire, vector }
}

/** A delivery by broker services of what they have verified. */
export const deliver = (
  shop: Workshop,
  content: string,
  to = "bob",
  signer: string = brokerServices
): string =>
  shop.sign(signer, { type: "postern/delivery/v1", to, content: JSON.parse(content), delivered_at_ms: nowMs })

/** Keys and messages for tests of broker services' cryptography. */

import type { RelayIdentity } from "../../src/adapters/mqtt/LocalRelayCrypto.ts"
import { NativeCrypto as engine } from "../../src/adapters/NativeCrypto.ts"
import { encodeBase64 } from "../../src/crypto/Base64.ts"
import { sealMessage, toWire } from "../../src/crypto/Messages.ts"
import type { Arrival, RelayRecipient } from "../../src/crypto/Relay.ts"
import { type JsonSigner, signJson } from "../../src/crypto/SignedJson.ts"
import type { Message } from "../../src/schemas/Message.ts"
import { type AgentName, brokerServices } from "../../src/schemas/Topics.ts"

export const relayNowMs = 1_000_000
const times = { issued_at_ms: relayNowMs, expires_at_ms: relayNowMs + 60_000 }

const filled = (seed: number) => new Uint8Array(32).fill(seed)

export const signerOf = (seed: number): JsonSigner => ({
  seed: filled(seed),
  signingKey: encodeBase64(engine.ed25519.publicKey(filled(seed)))
})

export const pairOf = (seed: number) => {
  const secret = filled(seed)
  const pair = { secret, public: engine.x25519.publicKey(secret) }
  return { pair, key: encodeBase64(pair.public) }
}

/** Broker services with agreement keys that follow from numbers, the newest last. */
export const servicesWith = (...seeds: readonly [number, ...Array<number>]): RelayIdentity => {
  const pairs = seeds.map(pairOf)
  return {
    signer: signerOf(1),
    agreements: new Map(pairs.map(({ key, pair }) => [key, pair])),
    agreement: { key: pairs.at(-1)?.key ?? "", version: seeds.length }
  }
}

export const recipient = (name: string, seed: number): RelayRecipient => ({
  name: name as AgentName,
  agreementKey: pairOf(seed).key
})

/** A private message, as it comes to broker services. */
export const privateArrival = (
  from: string,
  number: number,
  to: ReadonlyArray<string>,
  servicesKey: string
): Arrival => {
  const signer = signerOf(7)
  const id = `${"a".repeat(18)}${number
    .toString(16)
    .padStart(8, "0")
    .replace(/[0189]/g, (digit) => ({ 0: "w", 1: "x", 8: "y", 9: "z" })[digit] ?? "")}` as Message["id"]
  const message = signJson<Message>(engine, signer, {
    type: "postern/message/v1",
    id,
    level: "private",
    from: from as AgentName,
    to: to as ReadonlyArray<AgentName>,
    ...times,
    subject: "",
    body: { number }
  })
  const header = { id, level: "private", from: message.from, to: brokerServices, ...times } as const
  const sealed = sealMessage(
    engine,
    signer,
    header,
    message,
    servicesKey,
    engine.sha256(filled(number % 256))
  )
  if (sealed._tag === "Failure") throw sealed.failure
  return {
    inbox: "private",
    from: message.from,
    senderKey: signer.signingKey,
    wire: toWire(sealed.success),
    nowMs: relayNowMs
  }
}

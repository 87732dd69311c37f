/** Agents that exist only as keys and connections: they come, shake hands, and have private messages ready to send. */
import { randomBytes } from "node:crypto"
import { Redacted, Result } from "effect"
import { NativeCrypto } from "../../src/adapters/NativeCrypto.ts"
import { encodeBase32 } from "../../src/crypto/Base32.ts"
import { readHandshakeAnswer } from "../../src/crypto/Handshakes.ts"
import { hpkeEntropyBytes } from "../../src/crypto/Hpke.ts"
import { sealMessage, toWire } from "../../src/crypto/Messages.ts"
import { type JsonSigner, type SignedJson, signJson, type Unsigned } from "../../src/crypto/SignedJson.ts"
import type { Agreement, ConnectProof, Handshake } from "../../src/schemas/Agents.ts"
import type { DeviceId, Name, ServerId } from "../../src/schemas/Ids.ts"
import type { Message } from "../../src/schemas/Message.ts"
import { brokerServices, topicOf } from "../../src/schemas/Topics.ts"
import { loopbackAddress } from "../server/line.ts"
import type { SimulatedDevice } from "../server/simulated.ts"
import { MqttLine, type Prepared, prepare } from "./MqttLine.ts"

const topicRoot = "mf2c"
const lifetimeMs = 3_600_000
const randomId = () => encodeBase32(randomBytes(16)) as Message["id"]

/** A simulated device that has come as an agent. */
export interface BenchAgent {
  readonly name: Name
  readonly device: SimulatedDevice
  readonly signer: JsonSigner
  readonly line: MqttLine
  /** The key of broker services, as their answer told it. */
  readonly services: Agreement
}

const signerOf = (device: SimulatedDevice): JsonSigner => ({
  seed: Redacted.value(device.signingSeed),
  signingKey: device.signingKey
})

const sign = <A extends SignedJson>(signer: JsonSigner, unsigned: Unsigned<A>): Uint8Array =>
  toWire(signJson<A>(NativeCrypto, signer, unsigned))

/** Connects the device with this number, subscribes to its inboxes and shakes hands. */
export const comeAsAgent = async (
  { port, server }: { readonly port: number; readonly server: string },
  device: SimulatedDevice,
  index: number
): Promise<BenchAgent> => {
  const name = `device-${index}` as Name
  const signer = signerOf(device)
  const session = randomId() as string as Handshake["session"]
  const common = { agent: name, device: device.id as DeviceId, session, issued_at_ms: Date.now() }
  const password = sign<ConnectProof>(signer, {
    type: "postern/mqtt-connect/v1",
    ...common,
    server: server as ServerId
  } as Unsigned<ConnectProof>)
  const line = await MqttLine.open(port, { name, password }, loopbackAddress(index))
  const place = (inbox: "handshake" | "protected" | "private") => topicOf(topicRoot, { agent: name, inbox })
  const answered = new Promise<Buffer>((resolve) => {
    line.received = (topic, payload) => {
      if (topic === place("handshake")) resolve(Buffer.from(payload))
    }
  })
  await line.subscribe(place("handshake"), place("protected"), place("private"))
  const shake = sign<Handshake>(signer, {
    type: "postern/handshake/v1",
    ...common,
    nonce: randomId(),
    agreement: { key: device.agreementKey, version: device.encryption.version },
    visible: false,
    edge_devices: []
  } as Unsigned<Handshake>)
  await line.publish(prepare(topicOf(topicRoot, { agent: brokerServices, inbox: "handshake" }), shake))
  const answer = Result.getOrThrow(readHandshakeAnswer(NativeCrypto, await answered))
  if (answer.verdict !== "known") throw new Error(`${name} is ${answer.verdict}: ${answer.detail}`)
  line.received = () => undefined
  return { name, device, signer, line, services: answer.agreement }
}

/** A private message with so many bytes of text, ready to be published. */
export const privateMessage = (from: BenchAgent, to: ReadonlyArray<Name>, bodyBytes: number): Prepared => {
  const id = randomId()
  const nowMs = Date.now()
  const common = {
    id,
    level: "private",
    from: from.name,
    issued_at_ms: nowMs,
    expires_at_ms: nowMs + lifetimeMs
  } as const
  const message = signJson<Message>(NativeCrypto, from.signer, {
    type: "postern/message/v1",
    ...common,
    to,
    subject: "",
    body: "m".repeat(bodyBytes)
  } as Unsigned<Message>)
  const entropy = randomBytes(hpkeEntropyBytes)
  const header = { ...common, to: brokerServices } as const
  const sealed = sealMessage(
    NativeCrypto,
    from.signer,
    header as Parameters<typeof sealMessage>[2],
    message,
    from.services.key,
    entropy
  )
  return prepare(
    topicOf(topicRoot, { agent: brokerServices, inbox: "private" }),
    toWire(Result.getOrThrow(sealed))
  )
}

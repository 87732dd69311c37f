/** An agent that says whatever a test wants said: its keys and connection are real, its words need not be. */
import { randomBytes } from "node:crypto"
import { Redacted, Result } from "effect"
import mqtt, { type MqttClient } from "mqtt"
import { NativeCrypto } from "../../src/adapters/NativeCrypto.ts"
import type { NodeKeyRing } from "../../src/adapters/NodeKeys.ts"
import { encodeBase32 } from "../../src/crypto/Base32.ts"
import { sealMessage, toWire } from "../../src/crypto/Messages.ts"
import { type JsonSigner, signJson } from "../../src/crypto/SignedJson.ts"
import type {
  AgentStatus,
  ConnectProof,
  Handshake,
  Ping,
  Presence,
  SessionId
} from "../../src/schemas/Agents.ts"
import type { DeviceId, Name, ServerId } from "../../src/schemas/Ids.ts"
import type { Message, MessageId, Sealed } from "../../src/schemas/Message.ts"
import { type AgentName, brokerServices, type Inbox, topicOf } from "../../src/schemas/Topics.ts"
import { waitUntil } from "./Program.ts"

const engine = NativeCrypto

export const newId = (): MessageId => encodeBase32(randomBytes(16)) as MessageId

export interface RogueOptions {
  readonly topicRoot?: string
  readonly server: string
  readonly address: URL
  readonly keepaliveSeconds?: number
  readonly session?: string
  /** For a broker that takes no proof. */
  readonly password?: string
}

/** Signs with the keys of a ring. */
export const signerOf = (ring: NodeKeyRing): JsonSigner => ({
  seed: Redacted.value(ring.signingSeed),
  signingKey: ring.signingKey
})

export class RogueAgent {
  readonly name: Name
  readonly ring: NodeKeyRing
  readonly session: SessionId
  readonly arrived: Array<{ readonly topic: string; readonly payload: Buffer }> = []
  closed = false
  client!: MqttClient
  private readonly options: RogueOptions
  private readonly topicRoot: string

  private constructor(name: string, ring: NodeKeyRing, options: RogueOptions) {
    this.name = name as Name
    this.ring = ring
    this.options = options
    this.topicRoot = options.topicRoot ?? "mf2c"
    this.session = (options.session ?? newId()) as SessionId
  }

  /** Connects with a good proof and subscribes; says nothing yet. */
  static async connect(name: string, ring: NodeKeyRing, options: RogueOptions): Promise<RogueAgent> {
    const rogue = new RogueAgent(name, ring, options)
    await rogue.begin()
    return rogue
  }

  proof(changes: Partial<ConnectProof> = {}): Uint8Array {
    return toWire(
      signJson<ConnectProof>(engine, signerOf(this.ring), {
        type: "postern/mqtt-connect/v1",
        agent: this.name,
        device: this.ring.id as DeviceId,
        server: this.options.server as ServerId,
        session: this.session,
        issued_at_ms: Date.now(),
        ...changes
      })
    )
  }

  private async begin(): Promise<void> {
    const { address, keepaliveSeconds = 30 } = this.options
    const status = this.topic(brokerServices, "status")
    this.client = await mqtt.connectAsync(`mqtt://${address.host}`, {
      clientId: this.name,
      username: this.name,
      password: Buffer.from(this.options.password ?? this.proof()),
      clean: false,
      keepalive: keepaliveSeconds,
      reconnectPeriod: 0,
      will: { topic: status, payload: Buffer.from(this.status("DU")), qos: 1, retain: false }
    })
    this.client.on("error", () => undefined)
    this.client.setMaxListeners(0)
    this.client.on("close", () => {
      this.closed = true
    })
    this.client.on("message", (topic, payload) => void this.arrived.push({ topic, payload }))
    await this.client.subscribeAsync(`${this.topicRoot}/${this.name}/#`, { qos: 1 })
  }

  topic(agent: AgentName | string, inbox: Inbox): string {
    return topicOf(this.topicRoot, { agent: agent as AgentName, inbox })
  }

  /** Ends when it is acknowledged; mqtt.js alone would wait for ever where the connection ends instead. */
  async publish(agent: string, inbox: Inbox, wire: Uint8Array, retain = false): Promise<void> {
    const topic = this.topic(agent, inbox)
    await new Promise<void>((resolve, reject) => {
      const over = () => reject(new Error(`${this.name}'s connection ended before ${topic} was acknowledged`))
      if (this.closed) return over()
      this.client.once("close", over)
      this.client.publish(topic, Buffer.from(wire), { qos: 1, retain }, (error) => {
        this.client.off("close", over)
        if (error == null) resolve()
        else reject(error)
      })
    })
  }

  handshake(changes: Partial<Handshake> = {}): Uint8Array {
    return toWire(
      signJson<Handshake>(engine, signerOf(this.ring), {
        type: "postern/handshake/v1",
        agent: this.name,
        device: this.ring.id as DeviceId,
        session: this.session,
        nonce: newId(),
        agreement: { key: this.ring.agreementKey, version: 1 },
        visible: true,
        edge_devices: [],
        issued_at_ms: Date.now(),
        ...changes
      })
    )
  }

  status(status: Presence, changes: Partial<AgentStatus> = {}): Uint8Array {
    return toWire(
      signJson<AgentStatus>(engine, signerOf(this.ring), {
        type: "postern/status/v1",
        agent: this.name,
        session: this.session,
        status,
        issued_at_ms: Date.now(),
        ...changes
      })
    )
  }

  ping(to: string, changes: Partial<Ping> = {}): Uint8Array {
    return toWire(
      signJson<Ping>(engine, signerOf(this.ring), {
        type: "postern/ping/v1",
        from: this.name,
        to: to as AgentName,
        nonce: newId(),
        issued_at_ms: Date.now(),
        ...changes
      })
    )
  }

  /** Shakes hands, and waits for the answer. */
  async shakeHands(changes: Partial<Handshake> = {}): Promise<void> {
    const inbox = this.topic(this.name, "handshake")
    const before = this.arrived.filter(({ topic }) => topic === inbox).length
    await this.publish(brokerServices, "handshake", this.handshake(changes))
    await waitUntil(
      "the answer to the handshake",
      () => this.arrived.filter(({ topic }) => topic === inbox).length > before
    )
  }

  /** A message as it should be, but for what is changed. */
  message(to: ReadonlyArray<string>, changes: Partial<Message> = {}, signer = signerOf(this.ring)): Message {
    const now = Date.now()
    return signJson<Message>(engine, signer, {
      type: "postern/message/v1",
      id: newId(),
      level: "protected",
      from: this.name,
      to: to as ReadonlyArray<AgentName>,
      issued_at_ms: now,
      expires_at_ms: now + 3_600_000,
      subject: "",
      body: "hello",
      ...changes
    })
  }

  /** The same sealed to a key; the outside says what the inside does, but for what is changed. */
  sealed(
    message: Message,
    to: AgentName,
    key: string,
    changes: Partial<Sealed> = {},
    signer = signerOf(this.ring)
  ): Sealed {
    const { expires_at_ms, from, id, issued_at_ms } = message
    const level = to === brokerServices ? ("private" as const) : ("end_to_end" as const)
    const header = { id, level, from, to, issued_at_ms, expires_at_ms, ...changes }
    return Result.getOrThrow(sealMessage(engine, signer, header, message, key, randomBytes(32)))
  }

  async leave(): Promise<void> {
    await this.client.endAsync(true)
  }
}

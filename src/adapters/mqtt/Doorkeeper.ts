/**
 * The embedded broker's answers to aedes's questions: who may come, publish and subscribe, and what becomes of what is
 * published.
 */
import type { Duplex } from "node:stream"
import type { Aedes, AuthenticateError, Client, ConnectPacket, PublishPacket, Subscription } from "aedes"
import { type Effect, Schema } from "effect"
import type { BrokerHandlers, BrokerRefusal } from "../../ports/MessageBroker.ts"
import { Limits } from "../../schemas/Limits.ts"
import { MessageLimits } from "../../schemas/Message.ts"
import { mayRead, mayWrite, type TopicRole } from "../../schemas/TopicRights.ts"
import { AgentName, brokerServices, placeOf } from "../../schemas/Topics.ts"
import { WordTurns } from "./WordTurns.ts"

/** Nobody may subscribe to it: what is refused goes there, since MQTT 3.1.1 can refuse only by cutting the connection. */
const nowhere = "$postern/refused"

/** What SUBACK says of a filter that is not granted. */
const deniedQos = 0x80

/** Nothing comes of a packet any more but its acknowledgement. */
const discard = (packet: PublishPacket): void => {
  Object.assign(packet, { topic: nowhere, payload: Buffer.alloc(0), retain: false })
}

/** aedes can publish in the name of a client, which its types do not tell. */
interface PublishesFor {
  readonly publish: (
    packet: PublishPacket,
    client: Client | null,
    done: (error?: Error | null) => void
  ) => void
}

export interface DoorkeeperOptions {
  readonly topicRoot: string
  readonly maximumConnections: number
  /** Whether so many bytes may be kept on a topic. */
  readonly hasRoom: (topic: string, bytes: number) => boolean
}

const isAgentName = Schema.is(AgentName)

interface Standing {
  readonly name: AgentName
  readonly role: TopicRole
}

/** What CONNACK says: come again later, or with another proof. */
const unavailable = (): AuthenticateError =>
  Object.assign(new Error("server unavailable"), { returnCode: 3 }) as AuthenticateError
const unauthorized = (): AuthenticateError =>
  Object.assign(new Error("not authorized"), { returnCode: 5 }) as AuthenticateError

export type Fork = <A, E>(effect: Effect.Effect<A, E>) => Promise<A>

/** Who is connected as what, and the answers to aedes's questions. */
export class Doorkeeper {
  private readonly standings = new WeakMap<Client, Standing>()
  private readonly connects = new WeakMap<Client, ConnectPacket>()
  /** What each may read that has asked for it. */
  private readonly filters = new WeakMap<Client, Set<string>>()
  private readonly handlers: BrokerHandlers
  private readonly root: string
  private readonly fork: Fork
  private readonly maximumConnections: number
  private readonly hasRoom: DoorkeeperOptions["hasRoom"]
  private readonly words = new WordTurns()
  /** The last message of each connection that is in hand. */
  private readonly messages = new WeakMap<Client, Promise<void>>()
  private readonly connections = { agent: 0, stranger: 0, services: 0 }
  /** Those that were let in and do not stand yet. */
  private readonly coming = {
    agent: new Set<Client>(),
    stranger: new Set<Client>(),
    services: new Set<Client>()
  }
  /**
   * The newest connection of each name. aedes has such a list too, but an old connection that ends while a new one begins
   * takes the new one off it.
   */
  private readonly newest = new Map<string, Client>()
  /** Set as soon as it stands. */
  broker: Aedes | undefined = undefined

  constructor(handlers: BrokerHandlers, options: DoorkeeperOptions, fork: Fork) {
    this.handlers = handlers
    this.root = options.topicRoot
    this.maximumConnections = options.maximumConnections
    this.hasRoom = options.hasRoom
    this.fork = fork
  }

  standing(client: Client | null): Standing | undefined {
    return client === null ? undefined : this.standings.get(client)
  }

  /** A word that nobody waits for; what becomes of it must not end the program. */
  private tell(effect: Effect.Effect<void>): Promise<void> {
    return this.fork(effect).catch(() => undefined)
  }

  /** Ends when it is counted: whoever is refused all the time must wait for that, and not the counting grow. */
  private refuse(name: AgentName | null, reason: BrokerRefusal): Promise<void> {
    return this.tell(this.handlers.refused(name, reason))
  }

  /** Keeps what a connection began with, until it is known whose it is. */
  asks(client: Client, packet: ConnectPacket): void {
    this.connects.set(client, packet)
  }

  /** What a stranger leaves behind ends with its connection; a will would be published as if an agent's. */
  private leaveNothing(client: Client): void {
    const packet = this.connects.get(client)
    if (packet !== undefined) packet.clean = true
    Object.assign(client, { clean: true, _will: undefined })
  }

  /** Why something must not be published, whenever that is. */
  private wrongWith({ name, role }: Standing, { payload, topic }: PublishPacket): BrokerRefusal | undefined {
    // Of last wills aedes looks at neither: one with too many levels would be the end of the broker.
    const isTopic = !/[#+]/.test(topic) && topic.split("/").length <= Limits.messagingTopicLevels
    if (!isTopic || !mayWrite(role, name, this.root, topic)) return "not_permitted"
    return payload.length > MessageLimits.wireBytes ? "too_large" : undefined
  }

  /** A last will is published when nobody can be told any more that it may not be; so it is judged before it is kept. */
  private judgeWill(client: Client, standing: Standing): void {
    const { _will: will } = client as unknown as { readonly _will?: PublishPacket | null }
    if (will == null) return
    const wrong = this.wrongWith(standing, will)
    will.qos = will.qos === 0 ? 0 : 1
    if (wrong === undefined) return
    Object.assign(client, { _will: undefined })
    void this.refuse(standing.name, wrong)
  }

  /** Whether there is no room for one more; who comes again takes the place of its old connection. */
  private isFull(role: TopicRole, name: AgentName): boolean {
    if (this.standing(this.newest.get(name) ?? null)?.role === role) return false
    const most = role === "stranger" ? Limits.messagingStrangers : this.maximumConnections
    return this.connections[role] + this.coming[role].size >= most
  }

  readonly authenticate = (
    client: Client,
    username: string | undefined,
    password: Buffer | undefined,
    done: (error: AuthenticateError | null, success: boolean | null) => void
  ): void => {
    const name = client.id
    if (!isAgentName(name) || name === brokerServices || username !== name || password === undefined) {
      void this.refuse(null, "bad_credentials")
      return done(unauthorized(), false)
    }
    const judge = this.handlers.authenticate(name, new Uint8Array(password))
    this.fork(judge).then(
      (role) => {
        if (role === null) {
          void this.refuse(name, "bad_credentials")
          return done(unauthorized(), false)
        }
        if (this.isFull(role, name)) {
          void this.refuse(name, "too_many")
          return done(unavailable(), false)
        }
        if (role === "stranger") this.leaveNothing(client)
        else this.judgeWill(client, { name, role })
        this.standings.set(client, { name, role })
        // Of one that has gone already nothing more will be heard.
        if (!(client.conn as Duplex).destroyed) this.coming[role].add(client)
        done(null, true)
      },
      // Nobody has judged it.
      () => done(unavailable(), false)
    )
  }

  /** Decides what becomes of a publication; ends when it is safe to acknowledge it. */
  readonly admit = (client: Client | null, packet: PublishPacket): Promise<void> => {
    // aedes would ask whether it can be kept when it has been published already.
    if (packet.qos > 1)
      return Promise.reject(new Error("QoS 2 is not offered: messages carry ids of their own"))
    const { name, role } = this.standing(client) ?? this.willOf(packet)
    const isOurs = packet.topic.startsWith(`${this.root}/${brokerServices}/`)
    const isOwn = packet.topic.startsWith(`${this.root}/${name}/public/`)
    const refused = !this.bears(client, role)
      ? "too_many"
      : (this.wrongWith({ name, role }, packet) ??
        (this.isModest(client, role, packet.topic) ? undefined : "too_many"))
    // What is kept for those who come later is its sender's own to say, and only agents can be told to forget it.
    if (!isOwn || role === "stranger") packet.retain = false
    if (packet.retain && packet.payload.length > 0 && !this.hasRoom(packet.topic, packet.payload.length)) {
      packet.retain = false
      void this.refuse(name, "too_many")
    }
    if (refused !== undefined) {
      discard(packet)
      return this.refuse(name, refused)
    }
    if (!isOurs) return this.passOn(client, packet)
    const payload = Uint8Array.from(
      typeof packet.payload === "string" ? Buffer.from(packet.payload) : packet.payload
    )
    const publication = { from: name, role, topic: packet.topic, payload }
    const isWord = this.isWord(packet.topic)
    discard(packet)
    const hand = () => this.fork(this.handlers.received(publication))
    if (client === null) return hand()
    return isWord ? this.words.inTurn(client, hand) : this.behindLast(client, hand)
  }

  /**
   * One message of a connection is in hand at a time: what fails ends the connection, and what came behind it fails as well,
   * so that it comes again in its order.
   */
  private behindLast(client: Client, hand: () => Promise<void>): Promise<void> {
    const before = this.messages.get(client)
    const done = before === undefined ? hand() : before.then(hand)
    this.messages.set(client, done)
    return done
  }

  /** Whether a topic is where agents tell broker services of themselves. */
  private isWord(topic: string): boolean {
    const place = placeOf(this.root, topic)
    return place?.agent === brokerServices && place.inbox !== "protected" && place.inbox !== "private"
  }

  /** Takes one of a stranger's allowance; where nothing is left of it, its connection ends. */
  private bears(client: Client | null, role: TopicRole): boolean {
    if (client === null || role !== "stranger" || this.words.spend(client)) return true
    client.conn.destroy()
    return false
  }

  /** Whether a connection says no more than others can bear. */
  private isModest(client: Client | null, role: TopicRole, topic: string): boolean {
    if (client === null || (role !== "stranger" && !this.isWord(topic))) return true
    return this.words.may(client, role, topic.endsWith("/handshake"))
  }

  /** aedes acknowledges first and publishes then, but what is acknowledged must be safe: so it is published here. */
  private passOn(client: Client | null, packet: PublishPacket): Promise<void> {
    const copy = { ...packet }
    discard(packet)
    return new Promise((done, fail) => {
      if (this.broker === undefined) return fail(new Error("the broker is not open yet"))
      const broker = this.broker as unknown as PublishesFor
      broker.publish(copy, client, (error) => (error == null ? done() : fail(error)))
    })
  }

  /** A will is published after its owner's connection; the store knows whose it is. */
  private willOf(packet: PublishPacket): Standing {
    const { clientId } = packet as { clientId?: unknown }
    return isAgentName(clientId) && clientId !== brokerServices
      ? { name: clientId, role: "agent" }
      : { name: brokerServices, role: "stranger" }
  }

  /** Whether a filter is granted; what is refused is counted by {@link subscribed}. */
  mayRead(client: Client, filter: string): boolean {
    if (!this.isReadable(client, filter)) return false
    const filters = this.filters.get(client) ?? new Set()
    this.filters.set(client, filters)
    if (filters.size >= Limits.messagingFilters && !filters.has(filter)) return false
    filters.add(filter)
    return true
  }

  private isReadable(client: Client, filter: string): boolean {
    const standing = this.standing(client)
    return standing !== undefined && mayRead(standing.role, standing.name, this.root, filter)
  }

  /** A packet has asked for filters, and was answered. However many were refused, it counts as one refusal. */
  subscribed(client: Client, answers: ReadonlyArray<Subscription>): void {
    const standing = this.standing(client)
    if (standing === undefined) return
    const refused = answers.filter(({ qos }) => Number(qos) === deniedQos)
    if (refused.length > 0) {
      const isReadable = refused.every(({ topic }) => this.isReadable(client, topic))
      void this.refuse(standing.name, isReadable ? "too_many" : "not_permitted")
    }
    this.bears(client, standing.role)
  }

  /** A packet names more filters than anybody may have. */
  askedTooMuch(client: Client): void {
    void this.refuse(this.standing(client)?.name ?? null, "too_many")
  }

  isGranted(client: Client, filter: string): boolean {
    return this.filters.get(client)?.has(filter) ?? false
  }

  unsubscribed(client: Client, filters: ReadonlyArray<string>): void {
    for (const filter of filters) this.filters.get(client)?.delete(filter)
  }

  private comesNoMore(client: Client): void {
    for (const each of Object.values(this.coming)) each.delete(client)
  }

  /** A connection stands; an older one of the same name ends. False where it has ended already. */
  arrived(client: Client): boolean {
    this.comesNoMore(client)
    // Its end was told while it was set up, and will not be told again.
    if (client.closed) return false
    const before = this.newest.get(client.id)
    if (before !== undefined) this.departed(before)
    this.newest.set(client.id, client)
    before?.close()
    this.count(client, true)
    return true
  }

  /** A connection has ended. True where nobody of its name is here any more. */
  departed(client: Client): boolean {
    this.comesNoMore(client)
    if (this.newest.get(client.id) !== client) return false
    this.newest.delete(client.id)
    this.count(client, false)
    return true
  }

  private count(client: Client, connected: boolean): void {
    const standing = this.standing(client)
    if (standing === undefined) return
    this.connections[standing.role] += connected ? 1 : -1
    void this.tell(this.handlers.presence(standing.name, connected, standing.role))
  }

  connection(name: string): Client | undefined {
    return this.newest.get(name)
  }

  names(): ReadonlyArray<string> {
    return [...this.newest.keys()]
  }
}

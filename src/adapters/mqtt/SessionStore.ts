/**
 * What the embedded broker keeps of sessions, in the shape aedes asks for: subscriptions and retained messages in memory
 * and on disk, queues on disk alone. Everything that was acknowledged survives the process.
 *
 * Which identifier a packet was last sent with is not kept: after a restart it is sent anew, with another.
 *
 * @module
 */
import { Readable } from "node:stream"
import type { Client, Subscription } from "aedes"
import type { AedesPacket } from "aedes-packet"
import MemoryPersistence from "aedes-persistence/asyncPersistence.js"
import type { Effect } from "effect"
import { Limits } from "../../schemas/Limits.ts"
import { brokerServices } from "../../schemas/Topics.ts"
import type { DatabaseHost, SqliteError } from "../sqlite/Database.ts"
import type { MqttMethods, PacketName } from "../sqlite/messages/MqttRows.ts"
import { LastWills, type LastWillsOptions } from "./LastWills.ts"

/** Packets of one page of a queue. */
const pagePackets = 64

export interface SessionStoreOptions {
  readonly host: DatabaseHost<MqttMethods>
  readonly topicRoot: string
  /** Whether a filter that a client asked for was granted. */
  readonly isGranted: (client: Client, filter: string) => boolean
  readonly run: <A>(effect: Effect.Effect<A, SqliteError>) => Promise<A>
  /** How many packets wait for one client at the most. */
  readonly queuePackets: number
  /** Told how many packets were dropped from full queues. */
  readonly onDropped: (packets: number) => void
  readonly sayWill: LastWillsOptions["say"]
  readonly onTrouble: LastWillsOptions["onTrouble"]
}

type Identified = Pick<Client, "id">
interface Publication {
  readonly topic: string
  readonly payload?: Uint8Array | string
  readonly qos?: number
  readonly retain?: boolean
}

const bytesOf = (payload: Publication["payload"]): Uint8Array =>
  payload === undefined
    ? new Uint8Array(0)
    : typeof payload === "string"
      ? Buffer.from(payload)
      : payload.slice()

const nameOf = (packet: AedesPacket): PacketName => ({
  broker: packet.brokerId,
  counter: packet.brokerCounter
})

/** Messages over a QoS of 1 are not offered. */
const noExactlyOnce = (): never => {
  throw new Error("QoS 2 is not offered: messages carry ids of their own")
}

export class SessionStore extends MemoryPersistence {
  private readonly options: SessionStoreOptions
  private brokerId = ""
  /** How many bytes are kept on each topic below each agent's name. */
  private readonly kept = new Map<string, Map<string, number>>()
  /** By what one packet asks for. */
  private readonly subscribing = new WeakMap<Array<Subscription>, Promise<void>>()
  /** Packets on their way, by client and the identifier they were sent with. */
  private readonly sent = new Map<string, Map<number, PacketName>>()
  /** Connections that have been given all of their queues. */
  private readonly upToDate = new WeakSet<Identified>()
  /** Those that something came for since their queues were last looked at. */
  private readonly behind = new WeakSet<Identified>()
  /** Told when aedes takes the next packet of a connection's queue in hand, to write it. */
  private readonly taken = new WeakMap<Identified, () => void>()
  private readonly wills: LastWills
  /** While the wills that were left are looked at. */
  saying: Promise<void> | undefined = undefined

  constructor(options: SessionStoreOptions) {
    super()
    this.options = options
    this.wills = new LastWills({
      put: (row) => this.ask("putWill", row),
      take: (name) => this.ask("takeWill", name),
      all: () => this.ask("wills"),
      say: options.sayWill,
      onTrouble: options.onTrouble
    })
  }

  private ask<const K extends keyof MqttMethods & string>(
    method: K,
    ...args: Parameters<MqttMethods[K]>
  ): Promise<ReturnType<MqttMethods[K]>> {
    return this.options.run(this.options.host.call(method, ...args))
  }

  override async setup(broker: { readonly id: string }): Promise<void> {
    await super.setup(broker)
    this.brokerId = broker.id
    const { agents, retained, subscriptions } = await this.ask("sessions")
    for (const { client, filter, qos } of subscriptions)
      await super.addSubscriptions({ id: client } as Client, [
        { topic: filter, qos: qos as Subscription["qos"] }
      ])
    const owners = new Set([...agents, brokerServices])
    const left = retained.filter(({ topic }) => !owners.has(this.ownerOf(topic))).map(({ topic }) => topic)
    if (left.length > 0) await this.ask("unretain", left)
    for (const { payload, qos, topic } of retained) {
      // What was left by those who never were agents, or are none any more, nobody would take back.
      if (!owners.has(this.ownerOf(topic))) continue
      this.noteKept(topic, payload.length)
      await super.storeRetained({
        cmd: "publish",
        topic,
        qos: Math.min(qos, 1),
        payload: Buffer.from(payload),
        retain: true
      } as AedesPacket)
    }
  }

  /** Below whose name a topic is. */
  private ownerOf(topic: string): string {
    return topic.slice(this.options.topicRoot.length + 1).split("/", 1)[0] as string
  }

  private noteKept(topic: string, bytes: number): void {
    const owner = this.ownerOf(topic)
    const topics = this.kept.get(owner) ?? new Map<string, number>()
    if (bytes === 0) topics.delete(topic)
    else topics.set(topic, bytes)
    if (topics.size === 0) this.kept.delete(owner)
    else this.kept.set(owner, topics)
  }

  /** Whether there is room to keep so many bytes on a topic, beside what is kept below the same name. */
  hasRoom(topic: string, bytes: number): boolean {
    const others = new Map(this.kept.get(this.ownerOf(topic)))
    others.delete(topic)
    const sum = [...others.values()].reduce((all, each) => all + each, bytes)
    return others.size < Limits.messagingRetained && sum <= Limits.messagingRetainedBytes
  }

  override async storeRetained(packet: AedesPacket): Promise<void> {
    const { payload, qos = 0, topic } = packet as Publication
    const bytes = bytesOf(payload)
    this.noteKept(topic, bytes.length)
    await this.ask("retain", { topic, qos, payload: bytes })
    await super.storeRetained(packet)
  }

  /** aedes hands in all that one packet asks for, and once for each filter of it. */
  override addSubscriptions(client: Client, asked: Array<Subscription>): Promise<void> {
    const before = this.subscribing.get(asked)
    if (before !== undefined) return before
    const done = this.subscribe(client, asked)
    this.subscribing.set(asked, done)
    return done
  }

  private async subscribe(client: Client, asked: Array<Subscription>): Promise<void> {
    // When all of them have been asked for; a queue must not fill by what was refused.
    await Promise.resolve()
    const subscriptions = asked
      .filter(({ topic }) => this.options.isGranted(client, topic))
      .map((one) => ({ ...one, qos: one.qos === 0 ? 0 : 1 }) satisfies Subscription)
    const rows = subscriptions.map(({ qos, topic }) => ({ client: client.id, filter: topic, qos }))
    await this.ask("subscribe", rows)
    await super.addSubscriptions(client, subscriptions)
  }

  override async removeSubscriptions(client: Client, filters: Array<string>): Promise<void> {
    await this.ask("unsubscribe", client.id, filters)
    await super.removeSubscriptions(client, filters)
  }

  /** A session goes, since a clean one begins or its owner must: subscriptions, queue and will. */
  override async cleanSubscriptions(client: Identified): Promise<void> {
    this.sent.delete(client.id)
    // First, so that nobody takes a session that goes for one that will have it safe ...
    await super.cleanSubscriptions(client as Client)
    await this.ask("forgetClient", client.id)
    // ... and again for what was just being subscribed to.
    await super.cleanSubscriptions(client as Client)
  }

  override outgoingEnqueue(subscription: { clientId: string }, packet: AedesPacket): Promise<void> {
    return this.outgoingEnqueueCombi([subscription], packet)
  }

  override async outgoingEnqueueCombi(
    subscriptions: Array<{ clientId: string }>,
    packet: AedesPacket
  ): Promise<void> {
    if (subscriptions.length === 0) return
    // One queue takes a packet once, by however many of its filters.
    const clients = [...new Set(subscriptions.map(({ clientId }) => clientId))]
    const { payload, retain = false, topic } = packet as Publication
    const row = { ...nameOf(packet), topic, retain, payload: bytesOf(payload) }
    const bounds = { packets: this.options.queuePackets, bytes: Limits.messagingQueueBytes }
    const dropped = await this.ask("enqueue", clients, row, bounds)
    if (dropped > 0) this.options.onDropped(dropped)
  }

  override async outgoingUpdate(client: Identified, packet: AedesPacket): Promise<void> {
    const { cmd, messageId } = packet as { cmd: string; messageId?: number }
    // A reader that answers as if to QoS 2 has a PUBREL noted here, which names nothing.
    if (messageId === undefined || cmd !== "publish") return
    const sent = this.sent.get(client.id) ?? new Map<number, PacketName>()
    sent.set(messageId, nameOf(packet))
    this.sent.set(client.id, sent)
    this.taken.get(client)?.()
  }

  override async outgoingClearMessageId(client: Identified, packet: AedesPacket): Promise<AedesPacket> {
    const { messageId = 0 } = packet as { messageId?: number }
    const sent = this.sent.get(client.id)
    const name = sent?.get(messageId)
    if (name !== undefined) {
      await this.ask("acknowledged", client.id, name)
      sent?.delete(messageId)
    }
    return packet
  }

  /**
   * Whether what stands in the queue of a connection's session may be sent to it at once. Where the queue is still being
   * given to it that would overtake the rest (MQTT 3.1.1, 4.6); the queue brings it, and is looked at once more for it.
   */
  mayForward(client: Identified): boolean {
    if (this.upToDate.has(client)) return true
    this.behind.add(client)
    return false
  }

  override outgoingStream(client: Identified): Readable {
    this.sent.delete(client.id)
    const packets = this.queue(client)
    // Not `Readable.from`, whose end would wait for a packet that a connection which has ended never takes.
    return new Readable({
      objectMode: true,
      highWaterMark: 1,
      read() {
        packets.next().then(
          ({ done, value }) => void this.push(done === true ? null : value),
          (error) => void this.destroy(error)
        )
      }
    })
  }

  /** A queue, from its oldest packet until nothing has come since the last look at it. */
  private async *queue(client: Identified) {
    let place = 0
    let isLast = false
    while (!isLast) {
      this.behind.delete(client)
      const page = await this.ask("waiting", client.id, place, pagePackets)
      for (const row of page) {
        place = row.place
        // One at a time: what aedes has not written yet must be overtaken by nothing either.
        const taken = new Promise<void>((done) => this.taken.set(client, done))
        yield {
          cmd: "publish",
          brokerId: row.broker,
          brokerCounter: row.counter,
          topic: row.topic,
          retain: row.retain,
          qos: 1,
          payload: Buffer.from(row.payload)
        }
        await taken
      }
      isLast = page.length < pagePackets && !this.behind.has(client)
    }
    // In the same turn as the last look at `behind`, so that nothing falls between.
    this.upToDate.add(client)
  }

  /** Ends a session whole: its subscriptions, its queue, its will, and what is kept below its name. */
  async forget(client: string): Promise<void> {
    for (const topic of [...(this.kept.get(client)?.keys() ?? [])])
      await this.storeRetained({ cmd: "publish", topic, payload: Buffer.alloc(0) } as unknown as AedesPacket)
    await this.cleanSubscriptions({ id: client })
  }

  /** A connection has ended: what it was sent and did not acknowledge is sent again by the next. */
  disconnected(client: string): void {
    this.sent.delete(client)
  }

  override incomingStorePacket(): Promise<void> {
    return Promise.resolve().then(noExactlyOnce)
  }

  override async putWill(client: Client, packet: AedesPacket): Promise<void> {
    const { payload, qos = 0, retain = false, topic } = packet as Publication
    Object.assign(packet, { brokerId: this.brokerId, clientId: client.id })
    await this.wills.put(client, {
      client: client.id,
      broker: this.brokerId,
      topic,
      qos,
      retain,
      payload: bytesOf(payload)
    })
  }

  override async delWill({ id }: Identified): Promise<undefined> {
    await this.wills.remove(id)
  }

  /** Gives aedes none of those that were left: it would take one that fails for the end of the broker. */
  override streamWill(): Readable {
    this.saying ??= this.wills.sayLeft(this.brokerId).finally(() => {
      this.saying = undefined
    })
    return Readable.from([])
  }
}

/** What the embedded broker keeps of its clients' sessions, as synchronous functions over one database. */
import type { DatabaseSync } from "../Database.ts"

/** Names a packet: the life of the broker that took it, and its number in that life. */
export interface PacketName {
  readonly broker: string
  readonly counter: number
}

/** A packet of QoS 1 that waits for its acknowledgement. */
export interface OutgoingRow extends PacketName {
  readonly topic: string
  readonly retain: boolean
  readonly payload: Uint8Array
}

/** Of one client's queue. */
export interface QueueBounds {
  readonly packets: number
  readonly bytes: number
}

/** With where the next page begins. */
export interface PlacedRow extends OutgoingRow {
  readonly place: number
}

export interface SubscriptionRow {
  readonly client: string
  readonly filter: string
  readonly qos: number
}

export interface RetainedRow {
  readonly topic: string
  readonly qos: number
  readonly payload: Uint8Array
}

export interface WillRow extends RetainedRow {
  readonly client: string
  readonly broker: string
  readonly retain: boolean
}

export type MqttMethods = {
  readonly sessions: () => {
    readonly subscriptions: ReadonlyArray<SubscriptionRow>
    readonly retained: ReadonlyArray<RetainedRow>
    /** Whoever broker services know. */
    readonly agents: ReadonlyArray<string>
  }
  readonly subscribe: (rows: ReadonlyArray<SubscriptionRow>) => void
  readonly unsubscribe: (client: string, filters: ReadonlyArray<string>) => void
  /** The session's subscriptions; what waits for it stays. */
  readonly forgetSubscriptions: (client: string) => void
  /** Everything of a session. */
  readonly forgetClient: (client: string) => void
  /** An empty payload removes it. */
  readonly retain: (row: RetainedRow) => void
  readonly unretain: (topics: ReadonlyArray<string>) => void
  /**
   * Puts a packet into the queues of clients. Each is bounded: the oldest go, public ones before others, so that nobody
   * drives out what broker services have signed by what anybody may write. Gives how many went. A client that subscribes to
   * nothing any more gets none: its session has ended meanwhile, and whoever has the name next must not find it.
   */
  readonly enqueue: (clients: ReadonlyArray<string>, row: OutgoingRow, bounds: QueueBounds) => number
  /** Removes an acknowledged packet. */
  readonly acknowledged: (client: string, packet: PacketName) => void
  /** What waits, oldest first, behind a place. */
  readonly waiting: (client: string, behind: number, maximum: number) => ReadonlyArray<PlacedRow>
  readonly putWill: (row: WillRow) => void
  readonly will: (client: string) => WillRow | null
  readonly takeWill: (client: string) => WillRow | null
  readonly wills: () => ReadonlyArray<WillRow>
}

type Row = Readonly<Record<string, unknown>>

const toPlaced = (row: Row): PlacedRow => ({
  place: row["place"] as number,
  broker: row["broker"] as string,
  counter: row["counter"] as number,
  topic: row["topic"] as string,
  retain: row["retain"] === 1,
  payload: row["payload"] as Uint8Array
})

const toWill = (row: Row): WillRow => ({
  client: row["client"] as string,
  broker: row["broker"] as string,
  topic: row["topic"] as string,
  qos: row["qos"] as number,
  retain: row["retain"] === 1,
  payload: row["payload"] as Uint8Array
})

/** So many go at least where a queue is too long: to count it costs as much as it is long. */
const dropTogether = 16

const queueMethods = (database: DatabaseSync) => {
  const insert = database.prepare(`
    INSERT INTO outgoing (client, broker, counter, topic, retain, payload)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE EXISTS (SELECT 1 FROM subscriptions WHERE client = ?1)
    ON CONFLICT DO NOTHING`)
  const measure = database.prepare(
    "SELECT count(*) AS packets, coalesce(sum(length(payload)), 0) AS bytes FROM outgoing WHERE client = ?"
  )
  const dropOldest = database.prepare(`
    DELETE FROM outgoing WHERE place IN (
      SELECT place FROM outgoing WHERE client = ?
      ORDER BY topic NOT LIKE '%/public' AND topic NOT LIKE '%/public/%', place LIMIT ?)`)
  /** What each queue had room for when it was last counted, less what came since; what went meanwhile makes more. */
  const room = new Map<string, QueueBounds>()
  const dropOver = (client: string, bounds: QueueBounds): number => {
    let dropped = 0
    for (;;) {
      const { bytes, packets } = measure.get(client) as unknown as QueueBounds
      const left = { packets: bounds.packets - packets, bytes: bounds.bytes - bytes }
      room.set(client, left)
      if (left.packets >= 0 && left.bytes >= 0) return dropped
      dropped += Number(dropOldest.run(client, Math.max(-left.packets, dropTogether)).changes)
    }
  }
  /** Notes one more in a queue, and makes room where there may be none. Gives how many went. */
  const fill = (client: string, size: number, bounds: QueueBounds): number => {
    const { bytes, packets } = room.get(client) ?? { packets: 0, bytes: 0 }
    if (packets < 1 || bytes < size) return dropOver(client, bounds)
    room.set(client, { packets: packets - 1, bytes: bytes - size })
    return 0
  }
  const remove = database.prepare("DELETE FROM outgoing WHERE client = ? AND broker = ? AND counter = ?")
  const forget = database.prepare("DELETE FROM outgoing WHERE client = ?")
  const page = database.prepare(
    "SELECT * FROM outgoing WHERE client = ? AND place > ? ORDER BY place LIMIT ?"
  )
  return {
    enqueue: (clients, { broker, counter, payload, retain, topic }, bounds) => {
      let dropped = 0
      for (const client of clients) {
        const { changes } = insert.run(client, broker, counter, topic, retain ? 1 : 0, payload)
        if (changes > 0) dropped += fill(client, payload.length, bounds)
      }
      return dropped
    },
    forgetQueue: (client: string): void => {
      forget.run(client)
      room.delete(client)
    },
    acknowledged: (client, { broker, counter }) => void remove.run(client, broker, counter),
    waiting: (client, behind, maximum) => (page.all(client, behind, maximum) as Array<Row>).map(toPlaced)
  } satisfies Partial<MqttMethods> & { readonly forgetQueue: (client: string) => void }
}

const willMethods = (database: DatabaseSync) => {
  const put = database.prepare(`
    INSERT INTO wills (client, broker, topic, qos, retain, payload) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (client) DO UPDATE SET broker = excluded.broker, topic = excluded.topic, qos = excluded.qos,
      retain = excluded.retain, payload = excluded.payload`)
  const get = database.prepare("SELECT * FROM wills WHERE client = ?")
  const take = database.prepare("DELETE FROM wills WHERE client = ? RETURNING *")
  const all = database.prepare("SELECT * FROM wills ORDER BY client")
  const orNull = (row: unknown) => (row === undefined ? null : toWill(row as Row))
  return {
    putWill: ({ broker, client, payload, qos, retain, topic }) =>
      void put.run(client, broker, topic, qos, retain ? 1 : 0, payload),
    will: (client) => orNull(get.get(client)),
    takeWill: (client) => orNull(take.get(client)),
    wills: () => (all.all() as Array<Row>).map(toWill)
  } satisfies Partial<MqttMethods>
}

export const mqttMethods = (database: DatabaseSync): MqttMethods => {
  const subscriptions = database.prepare("SELECT client, filter, qos FROM subscriptions")
  const retained = database.prepare("SELECT topic, qos, payload FROM retained")
  const subscribe = database.prepare(`
    INSERT INTO subscriptions (client, filter, qos) VALUES (?, ?, ?)
    ON CONFLICT (client, filter) DO UPDATE SET qos = excluded.qos`)
  const unsubscribe = database.prepare("DELETE FROM subscriptions WHERE client = ? AND filter = ?")
  const unsubscribeAll = database.prepare("DELETE FROM subscriptions WHERE client = ?")
  const forgetWill = database.prepare("DELETE FROM wills WHERE client = ?")
  const keep = database.prepare(`
    INSERT INTO retained (topic, qos, payload) VALUES (?, ?, ?)
    ON CONFLICT (topic) DO UPDATE SET qos = excluded.qos, payload = excluded.payload`)
  const drop = database.prepare("DELETE FROM retained WHERE topic = ?")
  const agents = database.prepare("SELECT agent FROM agents")
  const { forgetQueue, ...queue } = queueMethods(database)
  return {
    ...queue,
    ...willMethods(database),
    sessions: () => ({
      subscriptions: subscriptions.all() as unknown as ReadonlyArray<SubscriptionRow>,
      retained: retained.all() as unknown as ReadonlyArray<RetainedRow>,
      agents: agents.all().map(({ agent }) => agent as string)
    }),
    subscribe: (rows) => {
      for (const { client, filter, qos } of rows) subscribe.run(client, filter, qos)
    },
    unsubscribe: (client, filters) => {
      for (const filter of filters) unsubscribe.run(client, filter)
    },
    forgetSubscriptions: (client) => void unsubscribeAll.run(client),
    forgetClient: (client) => {
      for (const statement of [unsubscribeAll, forgetWill]) statement.run(client)
      forgetQueue(client)
    },
    retain: ({ payload, qos, topic }) => {
      if (payload.length === 0) drop.run(topic)
      else keep.run(topic, qos, payload)
    },
    unretain: (topics) => {
      for (const topic of topics) drop.run(topic)
    }
  }
}

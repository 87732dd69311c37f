/** What the embedded broker keeps of its clients' sessions, as synchronous functions over one database. */
import { whenTakenBack } from "../Batch.ts"
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

/** What a queue holds. */
type Held = QueueBounds

const isOver = (held: Held, bounds: QueueBounds): boolean =>
  held.packets > bounds.packets || held.bytes > bounds.bytes

/** So many of a queue's oldest are looked at together; mostly one is enough. */
const oldestTogether = 64

/** Brings queues back within their bounds, by as much as they are over them. */
const makeShortening = (database: DatabaseSync) => {
  const inOrder = (source: string, also: string) => ({
    oldest: database.prepare(
      `SELECT place, length(payload) AS bytes FROM ${source} WHERE client = ? ${also} ORDER BY place LIMIT ?`
    ),
    drop: database.prepare(`DELETE FROM ${source} WHERE client = ? ${also} AND place <= ?`)
  })
  const kinds = [
    // By the index that has these alone: to sort a whole queue costs as much as it is long.
    inOrder("outgoing INDEXED BY outgoing_public", "AND (topic GLOB '*/public' OR topic GLOB '*/public/*')"),
    inOrder("outgoing", "")
  ]
  /** Gives what is left, and how many went. */
  return (
    client: string,
    whole: Held,
    bounds: QueueBounds
  ): { readonly held: Held; readonly dropped: number } => {
    let held = whole
    for (const { drop, oldest } of kinds) {
      for (let some = 1; isOver(held, bounds); some = Math.min(2 * some, oldestTogether)) {
        let last: number | null = null
        for (const { bytes, place } of oldest.all(client, some) as Array<Row>) {
          if (!isOver(held, bounds)) break
          held = { packets: held.packets - 1, bytes: held.bytes - (bytes as number) }
          last = place as number
        }
        if (last === null) break
        drop.run(client, last)
      }
    }
    return { held, dropped: whole.packets - held.packets }
  }
}

/** What each queue holds. To measure costs as much as that is, so it is done once, and what comes and goes is counted from then on. */
const makeHeld = (database: DatabaseSync) => {
  const measure = database.prepare(
    "SELECT count(*) AS packets, coalesce(sum(length(payload)), 0) AS bytes FROM outgoing WHERE client = ?"
  )
  const held = new Map<string, Held>()
  whenTakenBack(database, () => held.clear())
  const change = ({ bytes, packets }: Held, by: Held): Held => ({
    packets: packets + by.packets,
    bytes: bytes + by.bytes
  })
  return {
    /** One has been put in; gives what is in it now. */
    added: (client: string, bytes: number): Held => {
      const known = held.get(client)
      const now =
        known === undefined ? (measure.get(client) as unknown as Held) : change(known, { packets: 1, bytes })
      held.set(client, now)
      return now
    },
    set: (client: string, now: Held): void => void held.set(client, now),
    removed: (client: string, bytes: number): void => {
      const known = held.get(client)
      if (known !== undefined) held.set(client, change(known, { packets: -1, bytes: -bytes }))
    },
    forget: (client: string): void => void held.delete(client)
  }
}

const queueMethods = (database: DatabaseSync) => {
  const insert = database.prepare(`
    INSERT INTO outgoing (client, broker, counter, topic, retain, payload)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE EXISTS (SELECT 1 FROM subscriptions WHERE client = ?1)
    ON CONFLICT DO NOTHING`)
  const remove = database.prepare(
    "DELETE FROM outgoing WHERE client = ? AND broker = ? AND counter = ? RETURNING length(payload) AS bytes"
  )
  const forget = database.prepare("DELETE FROM outgoing WHERE client = ?")
  const page = database.prepare(
    "SELECT * FROM outgoing WHERE client = ? AND place > ? ORDER BY place LIMIT ?"
  )
  const held = makeHeld(database)
  const shorten = makeShortening(database)
  return {
    enqueue: (clients, { broker, counter, payload, retain, topic }, bounds) => {
      let sum = 0
      for (const client of clients) {
        const { changes } = insert.run(client, broker, counter, topic, retain ? 1 : 0, payload)
        if (changes === 0) continue
        const now = held.added(client, payload.length)
        if (!isOver(now, bounds)) continue
        const shortened = shorten(client, now, bounds)
        held.set(client, shortened.held)
        sum += shortened.dropped
      }
      return sum
    },
    forgetQueue: (client: string): void => {
      forget.run(client)
      held.forget(client)
    },
    acknowledged: (client, { broker, counter }) => {
      for (const { bytes } of remove.all(client, broker, counter)) held.removed(client, bytes as number)
    },
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

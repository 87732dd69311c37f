/** What broker services keep of agents and messages, as synchronous functions over one database. */
import type { Effect } from "effect"
import type { Acceptance, AgentRow, DeliveryRow, MessageStore } from "../../../ports/MessageStore.ts"
import { Limits } from "../../../schemas/Limits.ts"
import { MessageLimits } from "../../../schemas/Message.ts"
import type { AgentName } from "../../../schemas/Topics.ts"
import { whenTakenBack } from "../Batch.ts"
import type { DatabaseSync } from "../Database.ts"
import { type RefusalMethods, refusalMethods } from "./RefusalRows.ts"

type Port = MessageStore["Service"]
type Synchronous<F> = F extends (...args: infer A) => Effect.Effect<infer R, unknown>
  ? (...args: A) => R
  : never

type Effects = "agents" | "backlog" | "refusalCounts"

export type RelayMethods = {
  readonly [K in Exclude<keyof Port, Effects | keyof RefusalMethods>]: Synchronous<Port[K]>
} & {
  readonly [K in Exclude<Effects, keyof RefusalMethods>]: () => Effect.Success<Port[K]>
} & RefusalMethods

type Row = Readonly<Record<string, unknown>>

const toAgent = (row: Row): AgentRow => ({
  agent: row["agent"] as AgentRow["agent"],
  device: row["device"] as AgentRow["device"],
  signingKey: row["signing_key"] as AgentRow["signingKey"],
  agreement: { key: row["agreement_key"] as string, version: row["agreement_version"] as number },
  visible: row["visible"] === 1,
  edgeDevices: JSON.parse(row["edge_devices"] as string) as ReadonlyArray<string>,
  session: row["session"] as AgentRow["session"],
  status: row["status"] as AgentRow["status"],
  statusAtMs: row["status_at_ms"] as number,
  shakenAtMs: row["shaken_at_ms"] as number
})

const toDelivery = (row: Row): DeliveryRow => ({
  place: row["place"] as number,
  to: row["recipient"] as DeliveryRow["to"],
  inbox: row["inbox"] as DeliveryRow["inbox"],
  wire: row["wire"] as Uint8Array
})

const agentMethods = (database: DatabaseSync) => {
  const all = database.prepare("SELECT * FROM agents ORDER BY agent")
  const put = database.prepare(`
    INSERT INTO agents (agent, device, signing_key, agreement_key, agreement_version, visible, edge_devices, session,
      status, status_at_ms, shaken_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (agent) DO UPDATE SET device = excluded.device, signing_key = excluded.signing_key,
      agreement_key = excluded.agreement_key, agreement_version = excluded.agreement_version,
      visible = excluded.visible, edge_devices = excluded.edge_devices, session = excluded.session,
      status = excluded.status, status_at_ms = excluded.status_at_ms, shaken_at_ms = excluded.shaken_at_ms`)
  const drop = database.prepare("DELETE FROM agents WHERE agent = ?")
  const dropDeliveries = database.prepare("DELETE FROM deliveries WHERE recipient = ?")
  return {
    agents: () => (all.all() as Array<Row>).map(toAgent),
    putAgent: (row) =>
      void put.run(
        row.agent,
        row.device,
        row.signingKey,
        row.agreement.key,
        row.agreement.version,
        row.visible ? 1 : 0,
        JSON.stringify(row.edgeDevices),
        row.session,
        row.status,
        row.statusAtMs,
        row.shakenAtMs
      ),
    dropAgent: (agent) => {
      drop.run(agent)
      dropDeliveries.run(agent)
    }
  } satisfies Partial<RelayMethods>
}

/**
 * Ids until their end. To count a sender's costs as much as there are, so it is done once and then kept up; whoever has as many
 * as may be is counted without those that have ended meanwhile.
 */
const makeSeen = (database: DatabaseSync) => {
  const count = database.prepare("SELECT count(*) AS n FROM seen WHERE sender = ?")
  const ended = database.prepare(
    "SELECT sender, count(*) AS n FROM seen WHERE expires_at_ms <= ? GROUP BY sender"
  )
  const forget = database.prepare("DELETE FROM seen WHERE expires_at_ms <= ?")
  const remember = database.prepare(
    "INSERT INTO seen (sender, id, expires_at_ms) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
  )
  const known = database.prepare("SELECT 1 FROM seen WHERE sender = ? AND id = ?")
  const counts = new Map<string, number>()
  whenTakenBack(database, () => counts.clear())
  const countOf = (sender: string): number => {
    const counted = counts.get(sender) ?? ((count.get(sender) as Row)["n"] as number)
    counts.set(sender, counted)
    return counted
  }
  const forgetEnded = (nowMs: number): void => {
    for (const { n, sender } of ended.all(nowMs) as Array<Row>) {
      const counted = counts.get(sender as string)
      if (counted !== undefined) counts.set(sender as string, counted - (n as number))
    }
    forget.run(nowMs)
  }
  return {
    forgetEnded,
    remember: (sender: AgentName, id: string, expiresAtMs: number, nowMs: number): Acceptance => {
      if (countOf(sender) >= MessageLimits.seenPerSender) forgetEnded(nowMs)
      const counted = countOf(sender)
      if (counted >= MessageLimits.seenPerSender)
        return known.get(sender, id) === undefined ? "full" : "replayed"
      if (remember.run(sender, id, expiresAtMs).changes === 0) return "replayed"
      counts.set(sender, counted + 1)
      return "stored"
    }
  }
}

/**
 * What may still be stored for each recipient. To measure costs as much as waits, so it is done only when all that the last
 * measurement left free is used up; what went meanwhile makes more room, never less.
 */
const makeRoom = (database: DatabaseSync) => {
  const measure = database.prepare(
    "SELECT count(*) AS messages, coalesce(sum(length(wire)), 0) AS bytes FROM deliveries WHERE recipient = ?"
  )
  interface Room {
    readonly messages: number
    readonly bytes: number
  }
  const left = new Map<string, Room>()
  const crowded = new Set<string>()
  const measured = (recipient: string): Room => {
    const used = measure.get(recipient) as unknown as Room
    return {
      messages: Limits.undeliveredMessages - used.messages,
      bytes: Limits.messagingQueueBytes - used.bytes
    }
  }
  const isEnough = (room: Room | undefined, bytes: number): room is Room =>
    room !== undefined && room.messages > 0 && room.bytes >= bytes
  return {
    /** Whether there is room for one more, which is then taken. */
    take: (recipient: string, bytes: number): boolean => {
      if (crowded.has(recipient)) return false
      const known = left.get(recipient)
      const room = isEnough(known, bytes) ? known : measured(recipient)
      if (!isEnough(room, bytes)) {
        crowded.add(recipient)
        return false
      }
      left.set(recipient, { messages: room.messages - 1, bytes: room.bytes - bytes })
      return true
    },
    /** Something went: who was crowded is measured again. */
    freed: (): void => crowded.clear(),
    forget: (recipient: string): void => {
      left.delete(recipient)
      crowded.delete(recipient)
    }
  }
}

/** What waits for agents: in the store, and in the sessions of the embedded broker. */
const backlogMethods = (database: DatabaseSync) => {
  const stored = database.prepare("SELECT count(*) AS n FROM deliveries WHERE recipient = ?")
  const queued = database.prepare("SELECT count(*) AS n FROM outgoing WHERE client = ?")
  const allStored = database.prepare("SELECT count(*) AS n FROM deliveries")
  const allQueued = database.prepare("SELECT count(*) AS n FROM outgoing")
  const numberOf = (row: unknown) => (row as Row)["n"] as number
  return {
    backlogs: (agents) =>
      agents.map((agent) => ({
        agent,
        undelivered: numberOf(stored.get(agent)),
        queued: numberOf(queued.get(agent))
      })),
    backlog: () => ({ undelivered: numberOf(allStored.get()), queued: numberOf(allQueued.get()) })
  } satisfies Partial<RelayMethods>
}

export const relayMethods = (database: DatabaseSync): RelayMethods => {
  const insert = database.prepare(
    "INSERT INTO deliveries (recipient, inbox, expires_at_ms, wire) VALUES (?, ?, ?, ?)"
  )
  const page = database.prepare("SELECT * FROM deliveries WHERE place > ? ORDER BY place LIMIT ?")
  const pageOf = database.prepare(
    "SELECT * FROM deliveries WHERE recipient = ? AND place > ? ORDER BY place LIMIT ?"
  )
  const remove = database.prepare("DELETE FROM deliveries WHERE place = ?")
  const expire = database.prepare("DELETE FROM deliveries WHERE expires_at_ms <= ?")
  const seen = makeSeen(database)
  const room = makeRoom(database)
  const agents = agentMethods(database)
  return {
    ...agents,
    dropAgent: (agent) => {
      agents.dropAgent(agent)
      room.forget(agent)
    },
    ...backlogMethods(database),
    ...refusalMethods(database),
    accept: (sender, id, expiresAtMs, deliveries, nowMs) => {
      const outcome = seen.remember(sender, id, expiresAtMs, nowMs)
      if (outcome !== "stored") return { outcome, deliveries: [] }
      const fitting = deliveries.filter(({ to, wire }) => room.take(to, wire.length))
      const rows = fitting.map((delivery) => {
        const { inbox, to, wire } = delivery
        return { ...delivery, place: Number(insert.run(to, inbox, expiresAtMs, wire).lastInsertRowid) }
      })
      return { outcome, deliveries: rows }
    },
    undelivered: (recipient, behind, maximum) => {
      const rows = recipient === null ? page.all(behind, maximum) : pageOf.all(recipient, behind, maximum)
      return (rows as Array<Row>).map(toDelivery)
    },
    delivered: (places) => {
      for (const place of places) remove.run(place)
      room.freed()
    },
    prune: (nowMs) => {
      seen.forgetEnded(nowMs)
      room.freed()
      return Number(expire.run(nowMs).changes)
    }
  }
}

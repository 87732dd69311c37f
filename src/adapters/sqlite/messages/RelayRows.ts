/** What broker services keep of agents and messages, as synchronous functions over one database. */
import type { Effect } from "effect"
import type { Acceptance, AgentRow, MessageStore } from "../../../ports/MessageStore.ts"
import type { DeviceId } from "../../../schemas/Ids.ts"
import { MessageLimits } from "../../../schemas/Message.ts"
import { whenTakenBack } from "../Batch.ts"
import type { DatabaseSync } from "../Database.ts"
import { deliveryMethods } from "./DeliveryRows.ts"
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
    dropAgent: (agent) => void drop.run(agent)
  } satisfies Partial<RelayMethods>
}

/** Ids that go in one transaction at the most. */
const forgottenTogether = 2_048

/**
 * Ids until their end. To count a device's costs as much as there are, so it is done once and then kept up; whoever has as many
 * as may be is counted without those that have ended meanwhile.
 */
const makeSeen = (database: DatabaseSync) => {
  const count = database.prepare("SELECT count(*) AS n FROM seen WHERE device = ?")
  const forget = database.prepare(`
    DELETE FROM seen WHERE (device, id) IN (
      SELECT device, id FROM seen WHERE expires_at_ms <= ? ORDER BY expires_at_ms LIMIT ${forgottenTogether})
    RETURNING device`)
  const remember = database.prepare(
    "INSERT INTO seen (device, id, expires_at_ms) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
  )
  const known = database.prepare("SELECT 1 FROM seen WHERE device = ? AND id = ?")
  const counts = new Map<string, number>()
  whenTakenBack(database, () => counts.clear())
  const countOf = (device: string): number => {
    const counted = counts.get(device) ?? ((count.get(device) as Row)["n"] as number)
    counts.set(device, counted)
    return counted
  }
  /** Forgets some that have ended; gives whether there may be more. */
  const forgetEnded = (nowMs: number): boolean => {
    const ended = forget.all(nowMs) as Array<Row>
    for (const { device } of ended) {
      const counted = counts.get(device as string)
      if (counted !== undefined) counts.set(device as string, counted - 1)
    }
    return ended.length === forgottenTogether
  }
  return {
    forgetEnded,
    remember: (device: DeviceId, id: string, expiresAtMs: number, nowMs: number): Acceptance => {
      while (countOf(device) >= MessageLimits.seenPerSender && forgetEnded(nowMs));
      const counted = countOf(device)
      if (counted >= MessageLimits.seenPerSender)
        return known.get(device, id) === undefined ? "full" : "replayed"
      if (remember.run(device, id, expiresAtMs).changes === 0) return "replayed"
      counts.set(device, counted + 1)
      return "stored"
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
  const seen = makeSeen(database)
  const { drop, expire, store, ...deliveries } = deliveryMethods(database)
  const agents = agentMethods(database)
  return {
    ...agents,
    dropAgent: (agent) => {
      agents.dropAgent(agent)
      drop(agent)
    },
    ...backlogMethods(database),
    ...refusalMethods(database),
    ...deliveries,
    accept: (sender, id, expiresAtMs, what, nowMs) => {
      const outcome = seen.remember(sender, id, expiresAtMs, nowMs)
      return { outcome, deliveries: outcome === "stored" ? store(what, expiresAtMs) : [] }
    },
    prune: (nowMs) => {
      const { expired, isMore } = expire(nowMs)
      return { expired, isMore: seen.forgetEnded(nowMs) || isMore }
    }
  }
}

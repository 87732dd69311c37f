/** Devices in the fleet database: enrolment, admission, what polls told, and what is held against a device. */
import type { DeviceRow, DeviceStatus } from "../../../ports/FleetStore.ts"
import type { Admission } from "../../../schemas/Enrolment.ts"
import type { DeviceId, Incarnation } from "../../../schemas/Ids.ts"
import type { OnionClientKey } from "../../../schemas/Onion.ts"
import type { DatabaseSync } from "../Database.ts"
import { onionKeyTold } from "./Access.ts"
import type { Audit } from "./Audit.ts"
import { enrolmentMethods, type Find } from "./Enrolments.ts"
import { type Condition, conditions, statementsByText, valuesOf } from "./Filters.ts"
import {
  type FleetMethods,
  fromJson,
  fromJsonOrNull,
  integer,
  integerOrNull,
  type Row,
  type StoredObjection,
  text,
  textOrNull,
  toJson
} from "./FleetMethods.ts"

const toDevice = (row: Row): DeviceRow => ({
  device: text(row, "device") as DeviceId,
  status: text(row, "status") as DeviceStatus,
  name: textOrNull(row, "name"),
  enrolment: fromJson(row, "enrolment"),
  request: fromJson(row, "request"),
  admission: fromJsonOrNull(row, "admission"),
  admitted: fromJsonOrNull(row, "admitted"),
  preauthorisation: fromJsonOrNull(row, "preauthorisation"),
  requestedAtMs: integer(row, "requested_at_ms"),
  enrolledAtMs: integer(row, "enrolled_at_ms"),
  lastSeenAtMs: integerOrNull(row, "last_seen_at_ms"),
  incarnation: textOrNull(row, "incarnation") as Incarnation | null,
  highWater: fromJsonOrNull(row, "high_water"),
  toldAtMs: integerOrNull(row, "told_at_ms"),
  blocked: textOrNull(row, "blocked"),
  degraded: fromJson(row, "degraded"),
  lastReceipt: integer(row, "last_receipt"),
  rootVersion: integerOrNull(row, "root_version"),
  statement: fromJsonOrNull(row, "statement"),
  onionKey: textOrNull(row, "onion_key") as OnionClientKey | null,
  onionGroup: integerOrNull(row, "onion_group"),
  onionHeld: textOrNull(row, "onion_held") as OnionClientKey | null,
  onionShared:
    textOrNull(row, "shared_key") === null
      ? null
      : { key: text(row, "shared_key") as OnionClientKey, salt: text(row, "shared_salt") },
  objection: textOrNull(row, "objection") as StoredObjection | null
})

const admission = (database: DatabaseSync, find: Find, audit: Audit) => {
  const byName = database.prepare(
    "SELECT device FROM devices WHERE status = 'accepted' AND name = ? AND device <> ?"
  )
  const decide = database.prepare(`
    UPDATE devices SET status = ?, name = ?, admission = ?, admitted = ?, invitation = NULL WHERE device = ?`)
  const anew = database.prepare(`
    UPDATE devices SET epoch = epoch + 1, objection = NULL, incarnation = NULL, high_water = NULL, told_at_ms = NULL,
      last_receipt = 0 WHERE device = ?`)
  const removeTaken = database.prepare(`
    UPDATE jobs SET state = 'removed', final = 1, version = version + 1, reason = ?, changed_at_ms = ?
    WHERE device = ? AND final = 0 AND state <> 'queued'`)
  const removeAll = database.prepare(`
    UPDATE jobs SET state = 'removed', final = 1, version = version + 1, reason = ?, changed_at_ms = ?
    WHERE device = ? AND final = 0`)
  const statusOf = { accept: "accepted", reject: "rejected", revoke: "revoked" } as const

  const admit: FleetMethods["admit"] = (decision, envelope, actor, atMs) => {
    const row = find(decision.device)
    if (row === undefined) return "unknown"
    const before = fromJsonOrNull<Admission>(row, "admitted")
    // One made beforehand has the sequence 0: every decision about the device itself stands above it.
    if (before !== null && decision.sequence <= before.sequence) {
      const same = fromJson<{ payload: string }>(row, "admission").payload === envelope.payload
      return same ? "same" : "stale"
    }
    const status = statusOf[decision.decision]
    if (status === "accepted" && byName.get(decision.name, decision.device) !== undefined) return "name_taken"
    decide.run(status, decision.name, toJson(envelope), toJson(decision), decision.device)
    if (status !== "accepted") {
      removeAll.run(status, atMs, decision.device)
    } else if (before?.incarnation !== decision.incarnation || row["objection"] !== null) {
      // Another ledger than the one that took these orders: what may have begun there must not begin here.
      anew.run(decision.device)
      removeTaken.run("accepted_anew", atMs, decision.device)
    }
    audit(atMs, actor, decision.decision, `${decision.device} (${decision.name})`)
    return "done"
  }
  return admit
}

const seen = (database: DatabaseSync, audit: Audit) => {
  const update = database.prepare(`
    UPDATE devices SET last_seen_at_ms = ?, told_at_ms = ?, incarnation = ?, high_water = ?, blocked = ?, last_receipt = ?,
      root_version = ?, degraded = ?, statement = ?
    WHERE device = ?`)
  const holds = database.prepare("UPDATE devices SET onion_held = ? WHERE device = ?")
  const tellKey = onionKeyTold(database)
  const object = database.prepare(
    "UPDATE devices SET objection = ? WHERE device = ? AND status = 'accepted' AND objection IS NOT ?"
  )
  const receipt = database.prepare(`
    SELECT r.number, r.written_at_ms FROM receipts r JOIN devices d ON d.device = r.device
    WHERE r.device = ? AND r.incarnation = d.admitted ->> '$.incarnation' AND r.epoch = d.epoch
    ORDER BY r.number DESC LIMIT 1`)
  const taken = database.prepare(`
    SELECT j.root_version, j.counter, j.taken_at_ms FROM jobs j JOIN devices d ON d.device = j.device
    WHERE j.device = ? AND j.taken_epoch = d.epoch ORDER BY j.root_version DESC, j.counter DESC LIMIT 1`)
  return {
    sawDevice: (device, told) => {
      const mark = told.highWater === null ? null : toJson(told.highWater)
      const { atMs, blocked, incarnation, lastReceipt, rootVersion, toldAtMs } = told
      const degraded = toJson(told.degraded)
      const statement = told.statement === null ? null : toJson(told.statement)
      update.run(
        atMs,
        toldAtMs,
        incarnation,
        mark,
        blocked,
        lastReceipt,
        rootVersion,
        degraded,
        statement,
        device
      )
      if (told.onion === undefined) return
      holds.run(told.onion.held, device)
      tellKey(device, told.onion.key, told.onion.toldAtMs)
    },
    object: (device, objection, atMs) => {
      if (object.run(objection, device, objection).changes > 0)
        audit(atMs, "server", `object: ${objection}`, device)
    },
    standing: (device) => {
      const last = receipt.get(device) as Row | undefined
      const place = taken.get(device) as Row | undefined
      return {
        receipt:
          last === undefined
            ? null
            : { number: integer(last, "number"), atMs: integer(last, "written_at_ms") },
        position:
          place === undefined
            ? null
            : {
                rootVersion: integer(place, "root_version"),
                counter: integer(place, "counter"),
                atMs: integer(place, "taken_at_ms")
              }
      }
    }
  } satisfies Partial<FleetMethods>
}

export const deviceMethods = (database: DatabaseSync, audit: Audit) => {
  const byName = database.prepare("SELECT * FROM devices WHERE name = ? AND status = 'accepted'")
  const byId = database.prepare(`
    SELECT d.*, g.key AS shared_key, g.salt AS shared_salt
    FROM devices d LEFT JOIN onion_groups g ON g.id = d.onion_group AND g.spoiled = 0 WHERE d.device = ?`)
  const statements = statementsByText(database)
  const behind = "FROM devices WHERE status = 'accepted' AND (root_version IS NULL OR root_version < ?)"
  const countBehind = database.prepare(`SELECT count(*) AS n ${behind}`)
  const listBehind = database.prepare(`SELECT * ${behind} ORDER BY last_seen_at_ms, device LIMIT ?`)
  const heard = database.prepare(
    "SELECT count(*) AS n FROM devices WHERE status = 'accepted' AND last_seen_at_ms >= ?"
  )
  const find = (device: DeviceId) => byId.get(device) as Row | undefined
  return {
    heardSince: (atMs) => integer(heard.get(atMs) as Row, "n"),
    laggards: (version, limit) => ({
      count: integer(countBehind.get(version) as Row, "n"),
      devices: listBehind.all(version, limit).map(toDevice)
    }),
    ...enrolmentMethods(database, find, audit),
    admit: admission(database, find, audit),
    ...seen(database, audit),
    device: (device) => {
      const row = find(device)
      return row === undefined ? null : toDevice(row)
    },
    deviceNamed: (name) => {
      const row = byName.get(name) as Row | undefined
      return row === undefined ? null : toDevice(row)
    },
    devices: ({ after, limit, namePrefix, seenSinceMs, status, unseenSinceMs }) => {
      const where: Array<Condition> = []
      if (status !== undefined) where.push(["status = ?", status])
      if (namePrefix !== undefined) where.push(["substr(name, 1, ?) = ?", namePrefix.length, namePrefix])
      if (seenSinceMs !== undefined) where.push(["last_seen_at_ms >= ?", seenSinceMs])
      if (unseenSinceMs !== undefined) where.push(["coalesce(last_seen_at_ms, 0) < ?", unseenSinceMs])
      if (after !== undefined)
        where.push([
          "enrolled_at_ms < ? OR (enrolled_at_ms = ? AND device > ?)",
          after.atMs,
          after.atMs,
          after.device
        ])
      const rows = statements(
        `SELECT * FROM devices ${conditions(where)} ORDER BY enrolled_at_ms DESC, device LIMIT ?`
      ).all(...valuesOf(where), limit)
      return rows.map(toDevice)
    }
  } satisfies Partial<FleetMethods>
}

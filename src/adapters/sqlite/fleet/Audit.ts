/** Roots, invitations and the audit log: the small tables of the fleet database. */
import type { AuditRow } from "../../../ports/FleetStore.ts"
import type { DsseEnvelope } from "../../../schemas/Dsse.ts"
import type { DatabaseSync } from "../Database.ts"
import { type Condition, conditions, statementsByText, valuesOf } from "./Filters.ts"
import { type FleetMethods, fromJson, integer, type Row, text, toJson } from "./FleetMethods.ts"
import { tokenMethods } from "./Tokens.ts"

/** Adds a line to the audit log; who did what to whom. */
export type Audit = (atMs: number, actor: string, action: string, subject: string) => void

export const auditOf = (database: DatabaseSync): Audit => {
  const insert = database.prepare("INSERT INTO audit (at_ms, actor, action, subject) VALUES (?, ?, ?, ?)")
  return (atMs, actor, action, subject) => void insert.run(atMs, actor, action, subject)
}

const rootMethods = (database: DatabaseSync, audit: Audit) => {
  const list = database.prepare("SELECT envelope FROM roots WHERE version >= ? ORDER BY version LIMIT ?")
  const find = database.prepare("SELECT payload FROM roots WHERE version = ?")
  const insert = database.prepare("INSERT INTO roots (version, envelope, payload) VALUES (?, ?, ?)")
  return {
    roots: (from, maximum) => list.all(from, maximum).map((row) => fromJson<DsseEnvelope>(row, "envelope")),
    addRoot: (version, envelope, actor, atMs) => {
      const there = find.get(version) as Row | undefined
      if (there !== undefined) return text(there, "payload") === envelope.payload ? "same" : "conflict"
      insert.run(version, toJson(envelope), envelope.payload)
      audit(atMs, actor, "publish root", `version ${version}`)
      return "added"
    }
  } satisfies Partial<FleetMethods>
}

const invitationMethods = (database: DatabaseSync, audit: Audit) => {
  const insert = database.prepare(
    "INSERT INTO invitations (id, expires_at_ms) VALUES (?, ?) ON CONFLICT DO NOTHING"
  )
  const find = database.prepare("SELECT 1 AS found FROM invitations WHERE id = ? AND expires_at_ms > ?")
  const forget = database.prepare("DELETE FROM invitations WHERE expires_at_ms <= ?")
  return {
    addInvitation: (id, expiresAtMs, actor, atMs) => {
      forget.run(atMs)
      if (insert.run(id, expiresAtMs).changes > 0) audit(atMs, actor, "invite", id)
    },
    invitationValid: (id, nowMs) => find.get(id, nowMs) !== undefined
  } satisfies Partial<FleetMethods>
}

/** Lines of the log, the newest first, as far as they fit a filter. */
const listing = (database: DatabaseSync) => {
  const statements = statementsByText(database)
  return {
    audit: (maximum, { action, actor, before, sinceMs } = {}) => {
      const where: Array<Condition> = []
      if (before !== undefined) where.push(["id < ?", before])
      if (actor !== undefined) where.push(["actor = ?", actor])
      if (action !== undefined) where.push(["action = ?", action])
      if (sinceMs !== undefined) where.push(["at_ms >= ?", sinceMs])
      const rows = statements(
        `SELECT id, at_ms, actor, action, subject FROM audit ${conditions(where)} ORDER BY id DESC LIMIT ?`
      ).all(...valuesOf(where), maximum)
      return rows.map(
        (row): AuditRow => ({
          id: integer(row, "id"),
          atMs: integer(row, "at_ms"),
          actor: text(row, "actor"),
          action: text(row, "action"),
          subject: text(row, "subject")
        })
      )
    }
  } satisfies Partial<FleetMethods>
}

/** All of them, with the log's own reading method. */
export const smallTables = (database: DatabaseSync, audit: Audit) =>
  ({
    ...rootMethods(database, audit),
    ...invitationMethods(database, audit),
    ...tokenMethods(database, audit),
    ...listing(database)
  }) satisfies Partial<FleetMethods>

/** Roots, invitations, tokens and the audit log: the small tables of the fleet database. */
import type { AuditRow } from "../../../ports/FleetStore.ts"
import type { DsseEnvelope } from "../../../schemas/Dsse.ts"
import type { Role } from "../../../schemas/ManagementApi.ts"
import type { DatabaseSync } from "../Database.ts"
import { type FleetMethods, fromJson, integer, type Row, text, toJson } from "./FleetMethods.ts"

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

const tokenMethods = (database: DatabaseSync, audit: Audit) => {
  const find = database.prepare("SELECT name, role FROM tokens WHERE hash = ?")
  const insert = database.prepare(
    "INSERT INTO tokens (hash, name, role, created_at_ms) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
  )
  return {
    tokenByHash: (hash) => {
      const row = find.get(hash) as Row | undefined
      return row === undefined ? null : { name: text(row, "name"), role: text(row, "role") as Role }
    },
    addToken: (name, role, hash, atMs) => {
      if (insert.run(hash, name, role, atMs).changes === 0) return "name_taken"
      audit(atMs, "console", "create token", `${name} (${role})`)
      return "added"
    }
  } satisfies Partial<FleetMethods>
}

/** All of them, with the log's own reading method. */
export const smallTables = (database: DatabaseSync, audit: Audit) => {
  const list = database.prepare("SELECT at_ms, actor, action, subject FROM audit ORDER BY id DESC LIMIT ?")
  return {
    ...rootMethods(database, audit),
    ...invitationMethods(database, audit),
    ...tokenMethods(database, audit),
    audit: (maximum) =>
      list.all(maximum).map(
        (row): AuditRow => ({
          atMs: integer(row, "at_ms"),
          actor: text(row, "actor"),
          action: text(row, "action"),
          subject: text(row, "subject")
        })
      )
  } satisfies Partial<FleetMethods>
}

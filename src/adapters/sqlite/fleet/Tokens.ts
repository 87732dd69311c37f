/** API tokens in the fleet database. Their hashes alone are kept. */
import type { TokenRow } from "../../../ports/FleetStore.ts"
import type { Role } from "../../../schemas/ManagementApi.ts"
import type { DatabaseSync } from "../Database.ts"
import type { Audit } from "./Audit.ts"
import { type FleetMethods, integer, integerOrNull, type Row, text } from "./FleetMethods.ts"

const toToken = (row: Row): TokenRow => ({
  name: text(row, "name"),
  role: text(row, "role") as Role,
  createdAtMs: integer(row, "created_at_ms"),
  createdBy: text(row, "created_by"),
  expiresAtMs: integerOrNull(row, "expires_at_ms"),
  lastUsedAtMs: integerOrNull(row, "last_used_at_ms")
})

export const tokenMethods = (database: DatabaseSync, audit: Audit) => {
  const byHash = database.prepare("SELECT * FROM tokens WHERE hash = ?")
  const list = database.prepare("SELECT * FROM tokens ORDER BY name")
  const insert = database.prepare(`
    INSERT INTO tokens (hash, name, role, created_at_ms, created_by, expires_at_ms) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT DO NOTHING`)
  const renew = database.prepare(`
    UPDATE tokens SET hash = ?, created_at_ms = ?, created_by = ?, expires_at_ms = ?, last_used_at_ms = NULL
    WHERE name = ?`)
  const remove = database.prepare("DELETE FROM tokens WHERE name = ?")
  const used = database.prepare("UPDATE tokens SET last_used_at_ms = ? WHERE name = ?")
  return {
    tokenByHash: (hash) => {
      const row = byHash.get(hash) as Row | undefined
      return row === undefined ? null : toToken(row)
    },
    tokens: () => list.all().map(toToken),
    addToken: (name, role, hash, atMs, more = {}) => {
      const { actor = "console", expiresAtMs = null } = more
      if (insert.run(hash, name, role, atMs, actor, expiresAtMs).changes === 0) return "name_taken"
      audit(atMs, actor, "create token", `${name} (${role})`)
      return "added"
    },
    rotateToken: (name, hash, expiresAtMs, actor, atMs) => {
      if (renew.run(hash, atMs, actor, expiresAtMs, name).changes === 0) return false
      audit(atMs, actor, "rotate token", name)
      return true
    },
    revokeToken: (name, actor, atMs) => {
      if (remove.run(name).changes === 0) return false
      audit(atMs, actor, "revoke token", name)
      return true
    },
    tokenUsed: (name, atMs) => void used.run(atMs, name)
  } satisfies Partial<FleetMethods>
}

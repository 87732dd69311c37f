/** Who may reach the onion service for devices, in the fleet database: places, groups and their keys. */
import type { Effect } from "effect"
import type { AccessGroupRow, AccessRow, AccessStore } from "../../../ports/AccessStore.ts"
import type { DeviceId } from "../../../schemas/Ids.ts"
import type { OnionClientKey } from "../../../schemas/Onion.ts"
import type { DatabaseSync } from "../Database.ts"
import type { Audit } from "./Audit.ts"
import { integer, integerOrNull, type Row, text, textOrNull } from "./FleetMethods.ts"

type Port = AccessStore["Service"]

export type AccessMethods = {
  readonly access: () => Effect.Success<Port["access"]>
  readonly arrange: (...args: Parameters<Port["arrange"]>) => void
}

/** Notes the onion key that a device named at a time by its own clock; what it named before that changes nothing. */
export const onionKeyTold = (database: DatabaseSync) => {
  const update = database.prepare(
    "UPDATE devices SET onion_key = ?, onion_told_at_ms = ? WHERE device = ? AND onion_told_at_ms <= ?"
  )
  return (device: DeviceId, key: OnionClientKey | null, toldAtMs: number): void => {
    update.run(key, toldAtMs, device, toldAtMs)
  }
}

const toMember = (row: Row): AccessRow => ({
  device: text(row, "device") as DeviceId,
  key: text(row, "onion_key") as OnionClientKey,
  group: integerOrNull(row, "onion_group"),
  held: textOrNull(row, "onion_held") as OnionClientKey | null,
  enrolledAtMs: integer(row, "enrolled_at_ms"),
  heardAtMs: integer(row, "heard_at_ms")
})

const toGroup = (row: Row): AccessGroupRow => ({
  id: integer(row, "id"),
  version: integer(row, "version"),
  key: text(row, "key") as OnionClientKey,
  salt: text(row, "salt"),
  spoiled: integer(row, "spoiled") === 1
})

export const accessMethods = (database: DatabaseSync, audit: Audit): AccessMethods => {
  const members = database.prepare(`
    SELECT device, onion_key, onion_group, onion_held, enrolled_at_ms,
      max(asked_at_ms, coalesce(last_seen_at_ms, 0)) AS heard_at_ms
    FROM devices WHERE status = 'accepted' AND onion_key IS NOT NULL`)
  const groups = database.prepare("SELECT * FROM onion_groups ORDER BY id")
  const group = database.prepare("SELECT * FROM onion_groups WHERE id = ?")
  const place = database.prepare(
    "UPDATE devices SET onion_group = ?, onion_held = NULL WHERE device = ? AND status = 'accepted'"
  )
  const renew = database.prepare(`
    INSERT INTO onion_groups (id, version, key, salt) VALUES (?, 1, ?, ?)
    ON CONFLICT (id) DO UPDATE SET version = version + 1, key = excluded.key, salt = excluded.salt, spoiled = 0`)
  const end = database.prepare("DELETE FROM onion_groups WHERE id = ?")
  return {
    access: () => ({ devices: members.all().map(toMember), groups: groups.all().map(toGroup) }),
    arrange: ({ ended, keys, moves }, atMs) => {
      for (const id of ended) end.run(id)
      for (const { id, key, salt } of keys) {
        renew.run(id, key, salt)
        audit(atMs, "server", "renew-onion-key", `group ${id} (${integer(group.get(id) as Row, "version")})`)
      }
      for (const { device, group: id } of moves) place.run(id, device)
    }
  }
}

/** Who asks to be let in: how many may wait, and whom an operator let in beforehand. */
import type { DeviceStatus } from "../../../ports/FleetStore.ts"
import type { DeviceId } from "../../../schemas/Ids.ts"
import { Limits } from "../../../schemas/Limits.ts"
import type { DatabaseSync } from "../Database.ts"
import { onionKeyTold } from "./Access.ts"
import type { Audit } from "./Audit.ts"
import { type FleetMethods, fromJson, integer, type Row, text, textOrNull, toJson } from "./FleetMethods.ts"

/** Those without a valid invitation: nobody vouches for them, so they never stand in the way of those with one. */
const unproved = "status = 'pending' AND admission IS NULL AND invitation IS NULL"

/** How a device's row is found by its id. */
export type Find = (device: DeviceId) => Row | undefined

const numberOf = (row: unknown) => (row as { n: number }).n

/** Whether there is room for one more; makes it where only the unproved stand in the way, the one longest silent first. */
const makeRoom = (database: DatabaseSync) => {
  const known = database.prepare(`SELECT count(*) AS n FROM devices WHERE NOT (${unproved})`)
  const waiting = database.prepare(`SELECT count(*) AS n FROM devices WHERE ${unproved}`)
  const invited = database.prepare(
    "SELECT count(*) AS n FROM devices WHERE status = 'pending' AND invitation = ?"
  )
  const dropOldest = database.prepare(`
    DELETE FROM devices WHERE device IN
      (SELECT device FROM devices WHERE ${unproved} ORDER BY asked_at_ms, device LIMIT ?)`)
  return (invitation: string | null, maximumDevices: number): boolean => {
    if (numberOf(known.get()) >= maximumDevices) return false
    if (invitation !== null) return numberOf(invited.get(invitation)) < Limits.invitationUses
    const excess = numberOf(waiting.get()) + 1 - Limits.pendingEnrolments
    if (excess > 0) dropOldest.run(excess)
    return true
  }
}

const enrolment = (database: DatabaseSync, find: Find): FleetMethods["enrol"] => {
  const invitation = database.prepare("SELECT 1 AS found FROM invitations WHERE id = ? AND expires_at_ms > ?")
  const insert = database.prepare(`
    INSERT INTO devices (device, status, enrolment, request, requested_at_ms, invitation, enrolled_at_ms, asked_at_ms)
    VALUES (?, 'pending', ?, ?, ?, ?, ?, ?)`)
  const renew = database.prepare(
    "UPDATE devices SET enrolment = ?, request = ?, requested_at_ms = ?, asked_at_ms = ? WHERE device = ?"
  )
  const asked = database.prepare("UPDATE devices SET asked_at_ms = ? WHERE device = ?")
  const tellKey = onionKeyTold(database)
  const hasRoom = makeRoom(database)

  return (request, envelope, atMs, maximumDevices) => {
    // A clock that was years ahead must not hide everything the device says once it is right.
    const requestedAtMs = Math.min(request.issued_at_ms, atMs + Limits.requestClockSkewMs)
    const there = find(request.device)
    if (there !== undefined) {
      // An older request that comes late (or is replayed) must not hide the ledger the device has now.
      if (requestedAtMs > integer(there, "requested_at_ms")) {
        renew.run(toJson(envelope), toJson(request), requestedAtMs, atMs, request.device)
        tellKey(request.device, request.onion_key ?? null, requestedAtMs)
      } else asked.run(atMs, request.device)
      return text(there, "status") as DeviceStatus
    }
    const id = request.invitation?.id ?? null
    const invitedBy = id !== null && invitation.get(id, atMs) !== undefined ? id : null
    if (!hasRoom(invitedBy, maximumDevices)) return "full"
    insert.run(request.device, toJson(envelope), toJson(request), requestedAtMs, invitedBy, atMs, atMs)
    tellKey(request.device, request.onion_key ?? null, requestedAtMs)
    return "pending"
  }
}

const preauthorisation = (database: DatabaseSync, find: Find, audit: Audit) => {
  const select = database.prepare("SELECT * FROM preauthorisations WHERE subject = ?")
  const put = database.prepare(`
    INSERT INTO preauthorisations (subject, envelope, issued_at_ms, expires_at_ms) VALUES (?, ?, ?, ?)
    ON CONFLICT (subject) DO UPDATE SET envelope = excluded.envelope, issued_at_ms = excluded.issued_at_ms,
      expires_at_ms = excluded.expires_at_ms`)
  const forget = database.prepare(
    "DELETE FROM preauthorisations WHERE used_by IS NULL AND expires_at_ms <= ?"
  )
  const use = database.prepare("UPDATE preauthorisations SET used_by = ? WHERE subject = ?")
  const byName = database.prepare("SELECT device FROM devices WHERE status = 'accepted' AND name = ?")
  const accept = database.prepare(`
    UPDATE devices SET status = 'accepted', name = ?, admitted = ?, preauthorisation = ?, invitation = NULL
    WHERE device = ?`)
  return {
    preauthorise: (document, envelope, actor, atMs) => {
      forget.run(atMs)
      const there = select.get(document.subject) as Row | undefined
      if (there !== undefined) {
        if (fromJson<{ payload: string }>(there, "envelope").payload === envelope.payload) return "same"
        if (textOrNull(there, "used_by") !== null) return "used"
        if (integer(there, "issued_at_ms") >= document.issued_at_ms) return "stale"
      }
      put.run(document.subject, toJson(envelope), document.issued_at_ms, document.expires_at_ms)
      audit(atMs, actor, "pre-authorise", `${document.subject} (${document.name})`)
      return "done"
    },
    preauthorisation: (subject, nowMs) => {
      const row = select.get(subject) as Row | undefined
      const isOpen =
        row !== undefined && textOrNull(row, "used_by") === null && integer(row, "expires_at_ms") > nowMs
      return isOpen ? fromJson(row, "envelope") : null
    },
    admitBeforehand: (admitted, subject, envelope, atMs) => {
      const row = find(admitted.device)
      const isNew = row !== undefined && text(row, "status") === "pending" && row["admitted"] === null
      const there = select.get(subject) as Row | undefined
      const isOpen = there !== undefined && textOrNull(there, "used_by") === null
      if (!isNew || !isOpen) return "used"
      if (byName.get(admitted.name) !== undefined) return "name_taken"
      accept.run(admitted.name, toJson(admitted), toJson(envelope), admitted.device)
      use.run(admitted.device, subject)
      audit(atMs, "pre-authorised", "accept", `${admitted.device} (${admitted.name})`)
      return "done"
    }
  } satisfies Partial<FleetMethods>
}

/** Whether anybody is invited who did not come in yet. */
const openness = (database: DatabaseSync): Pick<FleetMethods, "enrolmentOpen"> => {
  const open = database.prepare(`
    SELECT EXISTS (
      SELECT 1 FROM invitations WHERE expires_at_ms > ? AND NOT EXISTS (
        SELECT 1 FROM devices
        WHERE status = 'accepted' AND json_extract(request, '$.invitation.id') = invitations.id)
    ) OR EXISTS (SELECT 1 FROM preauthorisations WHERE used_by IS NULL AND expires_at_ms > ?) AS n`)
  return { enrolmentOpen: (nowMs) => numberOf(open.get(nowMs, nowMs)) === 1 }
}

export const enrolmentMethods = (database: DatabaseSync, find: Find, audit: Audit) => ({
  enrol: enrolment(database, find),
  ...openness(database),
  ...preauthorisation(database, find, audit)
})

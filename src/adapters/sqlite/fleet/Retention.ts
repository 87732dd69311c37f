/** What the fleet database lets go of: see the port `RetentionStore`. */
import type { Effect } from "effect"
import type { ReceiptCut, Restoration, RetentionStore, StoredAmounts } from "../../../ports/RetentionStore.ts"
import type { DeviceId, Digest, OrderId } from "../../../schemas/Ids.ts"
import type { DatabaseSync } from "../Database.ts"
import type { Audit } from "./Audit.ts"
import { fromJson, integer, type Row, text, toJson } from "./FleetMethods.ts"

type Port = RetentionStore["Service"]
type Synchronous<F> = F extends (...args: infer A) => Effect.Effect<infer R, unknown>
  ? (...args: A) => R
  : never

export type RetentionMethods = {
  readonly [K in Exclude<keyof Port, "amounts" | "restored">]: Synchronous<Port[K]>
} & { readonly amounts: () => StoredAmounts; readonly restored: () => Restoration | null }

/** A job that takes no more from its device: it ended, or expired before a time. */
const isOver = "(final = 1 OR expires_at_ms <= ?)"

const blobUse = (database: DatabaseSync) => {
  const payload = database.prepare(`
    SELECT 1 AS found FROM jobs WHERE payload_digest = ?
      AND ((final = 1 AND changed_at_ms > ?) OR (final = 0 AND expires_at_ms > ?)) LIMIT 1`)
  // Its orders may still be on their way here.
  const planned = database.prepare(`
    SELECT 1 AS found FROM rollouts WHERE state IN ('loading', 'running', 'paused')
      AND plan ->> '$.payload.digest' = ? LIMIT 1`)
  const results = database.prepare("SELECT results_pruned_at_ms AS at_ms FROM jobs WHERE id = ?")
  return {
    unusedPayloads: (digests: ReadonlyArray<Digest>, endedBeforeMs: number) =>
      digests.filter(
        (digest) =>
          payload.get(digest, endedBeforeMs, endedBeforeMs) === undefined && planned.get(digest) === undefined
      ),
    strayArtifacts: (orders: ReadonlyArray<OrderId>) =>
      orders.filter((order) => {
        const row = results.get(order)
        return row === undefined || row["at_ms"] !== null
      })
  } satisfies Partial<RetentionMethods>
}

const results = (database: DatabaseSync) => {
  const list = database.prepare(`
    SELECT id, output_bytes + artifact_bytes AS bytes FROM jobs WHERE results_pruned_at_ms IS NULL AND (output_bytes > 0 OR artifact_bytes > 0)
      AND changed_at_ms <= ? AND ${isOver} ORDER BY changed_at_ms LIMIT ?`)
  const mark = database.prepare(
    "UPDATE jobs SET results_pruned_at_ms = ?, results_pruned_why = ?, version = version + 1 WHERE id = ?"
  )
  const losing = database.prepare(
    "SELECT id FROM jobs WHERE results_pruned_at_ms IS NOT NULL AND output_bytes > 0 LIMIT ?"
  )
  const drop = database.prepare(
    "DELETE FROM output WHERE rowid IN (SELECT rowid FROM output WHERE job = ? ORDER BY sequence LIMIT ?)"
  )
  const empty = database.prepare("UPDATE jobs SET output_bytes = 0 WHERE id = ?")
  return {
    pruneResults: ({ beforeMs, maximum, nowMs, why }) => {
      const dropped = list.all(beforeMs, beforeMs, maximum).map((row) => ({
        order: text(row, "id") as OrderId,
        bytes: integer(row, "bytes")
      }))
      for (const { order } of dropped) mark.run(nowMs, why, order)
      return dropped
    },
    pruneOutput: (maximum) => {
      let left = maximum
      for (const row of losing.all(maximum)) {
        const dropped = Number(drop.run(text(row, "id"), left).changes)
        if (dropped < left) empty.run(text(row, "id"))
        left -= dropped
        if (left <= 0) break
      }
      return maximum - left
    }
  } satisfies Partial<RetentionMethods>
}

const jobs = (database: DatabaseSync) => {
  // What a device's ledger is known to hold, and the next place, follow from its latest jobs: they stay.
  const list = database.prepare(`
    SELECT id, device FROM jobs AS j WHERE changed_at_ms <= ? AND ${isOver} AND expires_at_ms <= ? AND output_bytes = 0
      AND (artifact_bytes = 0 OR results_pruned_at_ms IS NOT NULL)
      AND EXISTS (SELECT 1 FROM jobs AS later WHERE later.device = j.device AND later.counter > j.counter
        AND (later.root_version, later.counter) > (j.root_version, j.counter)
        AND (j.taken_epoch IS NULL OR later.taken_epoch >= j.taken_epoch))
    ORDER BY changed_at_ms LIMIT ?`)
  const trace = database.prepare(
    "INSERT INTO pruned_jobs (id, device, pruned_at_ms) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
  )
  const drop = database.prepare("DELETE FROM jobs WHERE id = ?")
  const find = database.prepare("SELECT pruned_at_ms FROM pruned_jobs WHERE id = ?")
  return {
    pruneJobs: (beforeMs, nowMs, maximum) => {
      const rows = list.all(beforeMs, beforeMs, nowMs, maximum)
      for (const row of rows) {
        trace.run(text(row, "id"), text(row, "device"), nowMs)
        drop.run(text(row, "id"))
      }
      return rows.length
    },
    prunedJob: (id) => {
      const row = find.get(id) as Row | undefined
      return row === undefined ? null : integer(row, "pruned_at_ms")
    }
  } satisfies Partial<RetentionMethods>
}

const receipts = (database: DatabaseSync) => {
  // Only what has an older neighbour above it that is past its time too: the newest of the old ones is kept.
  const list = database.prepare(`
    SELECT rowid, device, incarnation, epoch, number FROM receipts AS r WHERE received_at_ms <= ?
      AND EXISTS (SELECT 1 FROM receipts AS later WHERE later.device = r.device AND later.incarnation = r.incarnation
        AND later.epoch = r.epoch AND later.number > r.number AND later.received_at_ms <= ?)
      AND NOT EXISTS (SELECT 1 FROM receipts AS below WHERE below.device = r.device AND below.incarnation = r.incarnation
        AND below.epoch = r.epoch AND below.number < r.number AND below.received_at_ms > ?)
    ORDER BY received_at_ms LIMIT ?`)
  const drop = database.prepare(
    "DELETE FROM receipts WHERE device = ? AND incarnation = ? AND epoch = ? AND number <= ?"
  )
  const cut = database.prepare(`
    INSERT INTO pruned_receipts (device, incarnation, epoch, below_number, pruned_at_ms) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (device, incarnation, epoch) DO UPDATE SET pruned_at_ms = excluded.pruned_at_ms,
      below_number = max(below_number, excluded.below_number)`)
  const find = database.prepare(`
    SELECT p.below_number, p.pruned_at_ms FROM pruned_receipts p JOIN devices d ON d.device = p.device
    WHERE p.device = ? AND p.incarnation = d.admitted ->> '$.incarnation' AND p.epoch = d.epoch`)
  return {
    pruneReceipts: (beforeMs, nowMs, maximum) => {
      let count = 0
      for (const row of list.all(beforeMs, beforeMs, beforeMs, maximum)) {
        const place = [text(row, "device"), text(row, "incarnation"), integer(row, "epoch")] as const
        const number = integer(row, "number")
        // What stands below has the same age or more; arrival is in order but for what was sent again.
        count += Number(drop.run(...place, number).changes)
        cut.run(...place, number + 1, nowMs)
      }
      return count
    },
    receiptCut: (device: DeviceId): ReceiptCut | null => {
      const row = find.get(device) as Row | undefined
      return row === undefined
        ? null
        : { belowNumber: integer(row, "below_number"), prunedAtMs: integer(row, "pruned_at_ms") }
    }
  } satisfies Partial<RetentionMethods>
}

const small = (database: DatabaseSync) => {
  const oldAudit = database.prepare(
    "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at_ms <= ? ORDER BY id LIMIT ?)"
  )
  const surplusAudit = database.prepare(
    "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE id <= (SELECT max(id) FROM audit) - ? ORDER BY id LIMIT ?)"
  )
  const invitations = database.prepare(
    "DELETE FROM invitations WHERE id IN (SELECT id FROM invitations WHERE expires_at_ms <= ? LIMIT ?)"
  )
  const tokens = database.prepare(
    "DELETE FROM tokens WHERE hash IN (SELECT hash FROM tokens WHERE expires_at_ms <= ? LIMIT ?)"
  )
  const traces = database.prepare(
    "DELETE FROM pruned_jobs WHERE id IN (SELECT id FROM pruned_jobs WHERE pruned_at_ms <= ? LIMIT ?)"
  )
  const enrolments = database.prepare(`
    DELETE FROM devices WHERE device IN (SELECT device FROM devices
      WHERE status = 'pending' AND admission IS NULL AND asked_at_ms <= ? LIMIT ?)`)
  const changes = (result: { readonly changes: number | bigint }) => Number(result.changes)
  return {
    pruneAudit: (beforeMs, keepEntries, maximum) =>
      changes(oldAudit.run(beforeMs, maximum)) + changes(surplusAudit.run(keepEntries, maximum)),
    pruneExpired: (beforeMs, tracesBeforeMs, maximum) =>
      changes(invitations.run(beforeMs, maximum)) +
      changes(tokens.run(beforeMs, maximum)) +
      changes(traces.run(tracesBeforeMs, maximum)),
    pruneEnrolments: (beforeMs, maximum) => changes(enrolments.run(beforeMs, maximum))
  } satisfies Partial<RetentionMethods>
}

const amounts = (database: DatabaseSync): RetentionMethods["amounts"] => {
  const pages = database.prepare(
    "SELECT page_count * page_size AS bytes FROM pragma_page_count, pragma_page_size"
  )
  const held = database.prepare(`
    SELECT count(*) AS jobs, coalesce(sum(output_bytes), 0) AS output_bytes,
      coalesce(sum(CASE WHEN results_pruned_at_ms IS NULL THEN artifact_bytes ELSE 0 END), 0) AS artifact_bytes
    FROM jobs`)
  const receiptCount = database.prepare("SELECT count(*) AS n FROM receipts")
  const auditCount = database.prepare("SELECT count(*) AS n FROM audit")
  return () => {
    const row = held.get() as Row
    return {
      databaseBytes: integer(pages.get() as Row, "bytes"),
      outputBytes: integer(row, "output_bytes"),
      artifactBytes: integer(row, "artifact_bytes"),
      jobs: integer(row, "jobs"),
      receipts: integer(receiptCount.get() as Row, "n"),
      auditEntries: integer(auditCount.get() as Row, "n")
    }
  }
}

const restoration = (database: DatabaseSync, audit: Audit) => {
  const find = database.prepare("SELECT value FROM facts WHERE name = 'restored'")
  const put = database.prepare("INSERT OR REPLACE INTO facts (name, value) VALUES ('restored', ?)")
  return {
    restored: () => {
      const row = find.get() as Row | undefined
      return row === undefined ? null : fromJson<Restoration>(row, "value")
    },
    noteRestored: (restored: Restoration) => {
      put.run(toJson(restored))
      audit(restored.atMs, "console", "restore", `the state of ${restored.backupAtMs}`)
    }
  } satisfies Partial<RetentionMethods>
}

export const retentionMethods = (database: DatabaseSync, audit: Audit): RetentionMethods => ({
  ...blobUse(database),
  ...results(database),
  ...jobs(database),
  ...receipts(database),
  ...small(database),
  ...restoration(database, audit),
  amounts: amounts(database)
})

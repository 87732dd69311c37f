/** Receipts in the fleet database. A receipt ends its order: nothing else makes a state final. */
import type { ReceiptRow } from "../../../ports/FleetStore.ts"
import type { DeviceId, Digest, OrderId } from "../../../schemas/Ids.ts"
import type { DatabaseSync } from "../Database.ts"
import { type FleetMethods, fromJson, integer, type Row, text, textOrNull, toJson } from "./FleetMethods.ts"

const toReceipt = (row: Row): ReceiptRow => ({
  device: text(row, "device") as DeviceId,
  number: integer(row, "number"),
  digest: text(row, "digest") as Digest,
  order: textOrNull(row, "job") as OrderId | null,
  envelope: fromJson(row, "envelope")
})

export const receiptMethods = (database: DatabaseSync) => {
  const same = database.prepare(
    "SELECT 1 AS found FROM receipts WHERE device = ? AND incarnation = ? AND number = ? AND digest = ?"
  )
  const insert = database.prepare(`
    INSERT INTO receipts (device, incarnation, epoch, number, digest, job, envelope, written_at_ms, received_at_ms)
    SELECT device, ?, epoch, ?, ?, ?, ?, ?, ? FROM devices WHERE device = ?
    ON CONFLICT DO NOTHING`)
  // Progress may have been lost, so the receipt also proves that the order was taken, unless it was refused.
  const conclude = database.prepare(`
    UPDATE jobs SET state = ?, final = 1, version = version + 1, reason = ?, receipt = ?, receipt_digest = ?,
      changed_at_ms = ?, done_bytes = NULL, total_bytes = NULL, bytes_per_second = NULL,
      taken_at_ms = CASE WHEN ? THEN coalesce(taken_at_ms, ?) ELSE taken_at_ms END,
      taken_epoch = CASE WHEN ? THEN (SELECT epoch FROM devices WHERE device = jobs.device) ELSE taken_epoch END
    WHERE id = ? AND device = ? AND digest = ? AND receipt IS NULL`)
  // Those of the ledger in force: what another one wrote, or this one before it was set back, is another chain.
  const list = database.prepare(`
    SELECT r.* FROM receipts r JOIN devices d ON d.device = r.device AND d.epoch = r.epoch
    WHERE r.device = ? AND r.number >= ? ORDER BY r.number, r.rowid LIMIT ?`)
  return {
    addReceipt: (receipt, envelope, digest, atMs) => {
      const { device, incarnation, number, order } = receipt
      if (same.get(device, incarnation, number, digest) !== undefined) return "same"
      const kept = toJson(envelope)
      const stored = insert.run(incarnation, number, digest, order, kept, receipt.ended_at_ms, atMs, device)
      if (stored.changes === 0) return "conflict"
      if (order !== null) {
        const began = receipt.started_at_ms !== null ? 1 : 0
        conclude.run(
          receipt.state,
          receipt.reason,
          kept,
          digest,
          atMs,
          began,
          receipt.ended_at_ms,
          began,
          order,
          device,
          receipt.order_digest
        )
      }
      return "stored"
    },
    receipts: (device, fromNumber, maximum) => list.all(device, fromNumber, maximum).map(toReceipt)
  } satisfies Partial<FleetMethods>
}

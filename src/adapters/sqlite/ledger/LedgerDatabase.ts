/** The ledger as a database class: its methods over orders, the outbox and small notes. */
import type { NoteKey, OutboxItem, OutboxSize } from "../../../ports/Ledger.ts"
import type { Incarnation, OrderId } from "../../../schemas/Ids.ts"
import { Limits } from "../../../schemas/Limits.ts"
import type { DatabaseDefinition, DatabaseSync } from "../Database.ts"
import { type OrderMethods, orderMethods } from "./LedgerOrders.ts"
import { readOutboxItem } from "./LedgerRows.ts"
import { ledgerMigrations } from "./LedgerSchema.ts"

export type OutboxMethods = {
  readonly putOutput: (order: OrderId, sequence: number, bytes: Uint8Array) => boolean
  readonly dropOutput: (order: OrderId) => void
  readonly outbox: (maximum: number, without?: ReadonlyArray<OrderId>) => ReadonlyArray<OutboxItem>
  readonly spooled: () => ReadonlyArray<string>
  readonly outboxSize: () => OutboxSize
  readonly acknowledge: (items: ReadonlyArray<OutboxItem>) => void
}

export type NoteMethods = {
  readonly note: (key: NoteKey) => string | null
  readonly setNote: (key: NoteKey, value: string) => void
  /** The incarnation of this ledger; `fresh` becomes it when there is none yet. */
  readonly incarnation: (fresh: Incarnation) => Incarnation
}

export type LedgerMethods = OrderMethods & OutboxMethods & NoteMethods

const outboxMethods = (database: DatabaseSync): OutboxMethods => {
  const size = database.prepare("SELECT count(*) AS items, coalesce(sum(size_bytes), 0) AS bytes FROM outbox")
  const putOutput = database.prepare(`
    INSERT INTO outbox (kind, order_id, sequence, bytes, size_bytes) VALUES ('output', ?, ?, ?, ?) ON CONFLICT DO NOTHING`)
  const dropOutput = database.prepare("DELETE FROM outbox WHERE kind = 'output' AND order_id = ?")
  const oldest = database.prepare(`
    SELECT * FROM outbox WHERE kind = 'receipt' OR order_id NOT IN (SELECT value FROM json_each(?)) ORDER BY id LIMIT ?`)
  const spooled = database.prepare("SELECT path FROM outbox WHERE kind = 'artifacts'")
  const forget = database.prepare("DELETE FROM outbox WHERE id = ? AND kind = ?")
  const forgetReceipt = database.prepare(
    "DELETE FROM outbox WHERE id = ? AND kind = 'receipt' AND number = ? AND digest = ?"
  )
  const outboxSize = (): OutboxSize => {
    const row = size.get() as { items: number; bytes: number }
    return { items: row.items, bytes: row.bytes }
  }
  return {
    spooled: () => spooled.all().map((row) => String(row["path"])),
    outboxSize,
    putOutput: (order, sequence, bytes) => {
      if (bytes.length > Limits.outputChunkEncryptedBytes)
        throw new Error(`a chunk of output has ${bytes.length} bytes`)
      const now = outboxSize()
      if (now.items >= Limits.outboxItems || now.bytes + bytes.length > Limits.outboxBytes) return false
      putOutput.run(order, sequence, bytes, bytes.length)
      return true
    },
    dropOutput: (order) => void dropOutput.run(order),
    outbox: (maximum, without = []) =>
      oldest.all(JSON.stringify(without), Math.min(maximum, Limits.outboxItems)).map(readOutboxItem),
    acknowledge: (items) => {
      for (const item of items) {
        if (item.kind === "receipt") forgetReceipt.run(item.id, item.number, item.digest)
        else forget.run(item.id, item.kind)
      }
    }
  }
}

const noteMethods = (database: DatabaseSync): NoteMethods => {
  const get = database.prepare("SELECT value FROM notes WHERE key = ?")
  const set = database.prepare(
    "INSERT INTO notes (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
  )
  const create = database.prepare(
    "INSERT INTO identity (id, incarnation) VALUES (1, ?) ON CONFLICT DO NOTHING"
  )
  const read = database.prepare("SELECT incarnation FROM identity")
  return {
    note: (key) => (get.get(key)?.["value"] as string | undefined) ?? null,
    setNote: (key, value) => void set.run(key, value),
    incarnation: (fresh) => {
      create.run(fresh)
      return read.get()?.["incarnation"] as Incarnation
    }
  }
}

/** Larger files would hold up the start for too long on a slow card. */
const checkedBytes = 64 * 1024 * 1024

/** A damaged file must be noticed before work is begun on what it says. */
const requireSound = (database: DatabaseSync): void => {
  const { bytes } = database
    .prepare("SELECT page_count * page_size AS bytes FROM pragma_page_count(), pragma_page_size()")
    .get() as { bytes: number }
  if (bytes > checkedBytes) return
  const found = database.prepare("PRAGMA quick_check(1)").get()?.["quick_check"]
  if (found !== "ok") throw new Error(`the file is damaged: ${String(found)}`)
}

export const ledgerDatabase: DatabaseDefinition<LedgerMethods> = {
  name: "ledger",
  migrations: ledgerMigrations,
  build: (database) => {
    requireSound(database)
    return { ...orderMethods(database), ...outboxMethods(database), ...noteMethods(database) }
  }
}

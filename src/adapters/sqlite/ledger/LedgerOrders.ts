/** The ledger's methods over orders, cancels and the receipt chain. Each is one transaction of its host. */
import type { ChainHead, Conclusion, LedgerCounts, LedgerOrder } from "../../../ports/Ledger.ts"
import type { HighWater } from "../../../schemas/DeviceApi.ts"
import type { DsseEnvelope } from "../../../schemas/Dsse.ts"
import type { Digest, OrderId } from "../../../schemas/Ids.ts"
import { Limits } from "../../../schemas/Limits.ts"
import type { FinalState, LaneName, WorkOrder } from "../../../schemas/WorkOrder.ts"
import type { DatabaseSync } from "../Database.ts"
import { orderColumns, readHighWater, readOrder } from "./LedgerRows.ts"

export type OrderMethods = {
  readonly highWater: () => HighWater | null
  readonly accept: (
    order: WorkOrder,
    envelope: DsseEnvelope,
    digest: Digest,
    receivedAtMs: number
  ) => "accepted" | "replayed" | "out_of_order"
  readonly advance: (order: OrderId, state: "downloading" | "verifying") => number
  readonly begin: (
    order: OrderId,
    idempotent: boolean,
    startedAtMs: number
  ) => { version: number; attempts: number }
  readonly requeue: (order: OrderId) => number
  readonly find: (order: OrderId) => LedgerOrder | null
  readonly unfinished: (lane: LaneName | null) => ReadonlyArray<LedgerOrder>
  readonly concluded: (orderDigest: Digest) => boolean
  readonly chainHead: () => ChainHead
  readonly conclude: (conclusion: Conclusion) => void
  readonly rememberCancel: (order: OrderId, envelope: DsseEnvelope, expiresAtMs: number) => boolean
  readonly cancels: () => ReadonlyArray<OrderId>
  readonly isCanceled: (order: OrderId) => boolean
  readonly counts: () => LedgerCounts
  readonly prune: (nowMs: number) => void
}

const isAbove = (order: WorkOrder, mark: HighWater | null): boolean =>
  mark === null ||
  order.root_version > mark.root_version ||
  (order.root_version === mark.root_version && order.counter > mark.counter)

const acceptanceMethods = (database: DatabaseSync) => {
  const selectMark = database.prepare("SELECT root_version, counter, order_digest FROM high_water")
  const raiseMark = database.prepare(`
    INSERT INTO high_water (id, root_version, counter, order_digest) VALUES (1, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET root_version = excluded.root_version, counter = excluded.counter,
      order_digest = excluded.order_digest`)
  const insert = database.prepare(`
    INSERT INTO orders (id, lane, root_version, counter, expires_at_ms, document, envelope, digest, state, is_final,
      version, attempts, is_idempotent, received_at_ms, started_at_ms)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'queued', 0, 0, 0, 0, ?, NULL)`)
  const select = database.prepare("SELECT 1 FROM orders WHERE id = ?")

  const highWater = (): HighWater | null => {
    const row = selectMark.get()
    return row === undefined ? null : readHighWater(row)
  }
  return {
    highWater,
    accept: (order, envelope, digest, receivedAtMs) => {
      if (!isAbove(order, highWater())) return "out_of_order"
      if (select.get(order.id) !== undefined) return "replayed"
      const { counter, expires_at_ms, id, lane, root_version } = order
      const texts = [JSON.stringify(order), JSON.stringify(envelope)] as const
      insert.run(id, lane, root_version, counter, expires_at_ms, ...texts, digest, receivedAtMs)
      raiseMark.run(root_version, counter, digest)
      return "accepted"
    }
  } satisfies Partial<OrderMethods>
}

const progressMethods = (database: DatabaseSync) => {
  const select = database.prepare(`SELECT ${orderColumns} FROM orders WHERE id = ?`)
  const inLine = database.prepare(`
    SELECT ${orderColumns} FROM orders WHERE is_final = 0 AND (? IS NULL OR lane = ?) ORDER BY root_version, counter`)
  const move = database.prepare(
    "UPDATE orders SET state = ?, version = version + 1 WHERE id = ? AND is_final = 0 RETURNING version"
  )
  const start = database.prepare(`
    UPDATE orders SET state = 'running', version = version + 1, attempts = attempts + 1, is_idempotent = ?,
      started_at_ms = ? WHERE id = ? AND is_final = 0 RETURNING version, attempts`)

  const find = (order: OrderId): LedgerOrder | null => {
    const row = select.get(order)
    return row === undefined ? null : readOrder(row)
  }
  const unfinished = (order: OrderId): LedgerOrder => {
    const row = find(order)
    if (row === null) throw new Error(`there is no order ${order}`)
    return row
  }
  const moveTo = (order: OrderId, state: string): number => {
    const row = move.get(state, order) as { version: number } | undefined
    if (row === undefined) throw new Error(`the order ${order} is not known, or has ended`)
    return row.version
  }
  return {
    find,
    advance: moveTo,
    begin: (order, idempotent, startedAtMs) => {
      const before = unfinished(order)
      const { attempts } = before
      // What was once begun as not idempotent stays so, whatever is said now.
      const mayRepeat = idempotent && (attempts === 0 || before.idempotent)
      const allowed = mayRepeat ? Limits.runAttempts : 1
      if (attempts >= allowed)
        throw new Error(`the order ${order} was begun ${attempts} times; ${allowed} are allowed`)
      const row = start.get(idempotent ? 1 : 0, startedAtMs, order) as
        | { version: number; attempts: number }
        | undefined
      if (row === undefined) throw new Error(`the order ${order} has ended`)
      return { version: row.version, attempts: row.attempts }
    },
    requeue: (order) => {
      const { attempts, idempotent } = unfinished(order)
      if (attempts > 0 && !idempotent)
        throw new Error(`the order ${order} was begun and may not be run again`)
      return moveTo(order, "queued")
    },
    unfinished: (lane) => inLine.all(lane, lane).map(readOrder)
  } satisfies Partial<OrderMethods>
}

const tallyName = (state: FinalState): keyof LedgerCounts =>
  state === "succeeded" || state === "rejected" ? state : "failed"

const conclusionMethods = (database: DatabaseSync) => {
  const selectHead = database.prepare("SELECT number, digest FROM chain")
  const setHead = database.prepare(`
    INSERT INTO chain (id, number, digest) VALUES (1, ?, ?)
    ON CONFLICT (id) DO UPDATE SET number = excluded.number, digest = excluded.digest`)
  const end = database.prepare(
    "UPDATE orders SET state = ?, is_final = 1, version = version + 1 WHERE id = ? AND digest = ? AND is_final = 0"
  )
  const addRefusal = database.prepare("INSERT INTO refusals (key) VALUES (?)")
  const forgetRefusals = database.prepare(`
    DELETE FROM refusals WHERE id <= (SELECT id FROM refusals ORDER BY id DESC LIMIT 1 OFFSET ${Limits.ledgerRefusals})`)
  const isRefused = database.prepare("SELECT 1 FROM refusals WHERE key = ?")
  const isEnded = database.prepare("SELECT 1 FROM orders WHERE digest = ? AND is_final = 1")
  const addArtifacts = database.prepare(
    "INSERT INTO outbox (kind, order_id, path, size_bytes) VALUES ('artifacts', ?, ?, ?)"
  )
  const addReceipt = database.prepare(
    "INSERT INTO outbox (kind, number, digest, envelope, size_bytes) VALUES ('receipt', ?, ?, ?, ?)"
  )
  const count = database.prepare(
    "INSERT INTO tally (outcome, count) VALUES (?, 1) ON CONFLICT (outcome) DO UPDATE SET count = count + 1"
  )
  const selectTally = database.prepare("SELECT outcome, count FROM tally")

  const chainHead = (): ChainHead => {
    const row = selectHead.get() as { number: number; digest: Digest } | undefined
    return row === undefined ? { number: 0, digest: null } : { number: row.number, digest: row.digest }
  }
  const endOrder = ({ order, orderDigest, state }: Conclusion): void => {
    if (order !== null) {
      if (end.run(state, order, orderDigest).changes !== 1) {
        throw new Error(`the order ${order} with that digest is not known, or has ended`)
      }
      return
    }
    if (isRefused.get(orderDigest) !== undefined) throw new Error(`${orderDigest} was concluded before`)
    addRefusal.run(orderDigest)
    forgetRefusals.run()
  }
  return {
    chainHead,
    concluded: (digest) => isRefused.get(digest) !== undefined || isEnded.get(digest) !== undefined,
    conclude: (conclusion) => {
      const { artifacts, number, order, previous, receipt, receiptDigest, state } = conclusion
      const head = chainHead()
      if (number !== head.number + 1 || previous !== head.digest) {
        throw new Error(`receipt ${number} does not continue the chain, which ends with ${head.number}`)
      }
      endOrder(conclusion)
      if (artifacts !== null) {
        if (order === null) throw new Error("what was never an order has no artifacts")
        addArtifacts.run(order, artifacts.path, artifacts.sizeBytes)
      }
      const text = JSON.stringify(receipt)
      addReceipt.run(number, receiptDigest, text, text.length)
      setHead.run(number, receiptDigest)
      count.run(tallyName(state))
    },
    counts: () => {
      const counts = { succeeded: 0, failed: 0, rejected: 0 }
      for (const row of selectTally.all() as Array<{ outcome: keyof LedgerCounts; count: number }>) {
        counts[row.outcome] = row.count
      }
      return counts
    }
  } satisfies Partial<OrderMethods>
}

const cancelMethods = (database: DatabaseSync) => {
  const remember = database.prepare(
    "INSERT INTO cancels (order_id, envelope, expires_at_ms) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
  )
  const prolong = database.prepare(
    "UPDATE cancels SET expires_at_ms = max(expires_at_ms, ?) WHERE order_id = ?"
  )
  const list = database.prepare("SELECT order_id FROM cancels ORDER BY rowid")
  const select = database.prepare("SELECT 1 FROM cancels WHERE order_id = ?")
  const pruneCancels = database.prepare("DELETE FROM cancels WHERE expires_at_ms <= ?")
  const pruneOrders = database.prepare("DELETE FROM orders WHERE is_final = 1 AND expires_at_ms <= ?")
  return {
    rememberCancel: (order, envelope, expiresAtMs) => {
      if (remember.run(order, JSON.stringify(envelope), expiresAtMs).changes === 1) return true
      prolong.run(expiresAtMs, order)
      return false
    },
    cancels: () => list.all().map((row) => row["order_id"] as OrderId),
    isCanceled: (order) => select.get(order) !== undefined,
    prune: (nowMs) => {
      pruneCancels.run(nowMs)
      pruneOrders.run(nowMs)
    }
  } satisfies Partial<OrderMethods>
}

/** Prepares the statements. */
export const orderMethods = (database: DatabaseSync): OrderMethods => ({
  ...acceptanceMethods(database),
  ...progressMethods(database),
  ...conclusionMethods(database),
  ...cancelMethods(database)
})

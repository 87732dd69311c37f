/**
 * Judgement on receipts as an operator holds them: each by the device of the device book, in one unbroken chain, about
 * the order that was signed. Pure; an alarm is a sentence for a person to read.
 *
 * @module
 */
import { Result } from "effect"
import type { Opened } from "../../crypto/Documents.ts"
import type { Engine } from "../../crypto/Engine.ts"
import { verifyReceipt } from "../../crypto/Trust.ts"
import type { DsseEnvelope } from "../../schemas/Dsse.ts"
import type { Digest } from "../../schemas/Ids.ts"
import { Limits } from "../../schemas/Limits.ts"
import type { Receipt } from "../../schemas/Receipt.ts"
import type { OrderState, WorkOrder } from "../../schemas/WorkOrder.ts"
import type { DeviceRecord } from "./Records.ts"

/** A verified receipt and the digest by which the next one names it. */
export type VerifiedReceipt = Opened<Receipt>

export type ChainHead = DeviceRecord["last_receipt"]

/** What can be said of a page of receipts: those that continue the chain, and what is wrong with the first that does not. */
export interface ChainExtension {
  readonly head: ChainHead
  readonly receipts: ReadonlyArray<VerifiedReceipt>
  readonly alarm: string | null
}

/** What a server says for itself where it does not show all receipts. */
export interface ServerExcuse {
  /** It keeps receipts from this number on; null for all. */
  readonly prunedBelow: number | null
  /** It was restored from a backup, and lacks what came after that. */
  readonly restored: boolean
  readonly nowMs: number
}

const noExcuse: ServerExcuse = { prunedBelow: null, restored: false, nowMs: 0 }

const dayMs = 24 * 3_600_000

/**
 * Whether a chain may begin with this receipt: at the server's cut, and so old itself that what is missing before it was
 * dropped for its age. A server cannot hide anything newer under that name.
 */
const isOldCut = ({ nowMs, prunedBelow }: ServerExcuse, receipt: Receipt): boolean =>
  receipt.number === prunedBelow && receipt.ended_at_ms <= nowMs - Limits.receiptDaysMinimum * dayMs

/**
 * Follows the chain of a device from the last receipt the book knows, which must stand in the page again: a server that
 * lacks it forgot receipts (one that was restored may, where the chain goes on from it). Receipts of another incarnation
 * than the accepted one are passed over: they belong to a ledger that no longer counts. Stops at the first that does not
 * fit.
 */
export const extendChain = (
  engine: Engine,
  record: DeviceRecord,
  envelopes: ReadonlyArray<DsseEnvelope>,
  server: ServerExcuse = noExcuse
): ChainExtension => {
  let head = record.last_receipt
  const receipts: Array<VerifiedReceipt> = []
  let isHeadShown = head === null
  const stop = (alarm: string): ChainExtension => ({ head, receipts, alarm })
  for (const envelope of envelopes) {
    const verified = verifyReceipt(engine, record.device, record.signing_key, envelope)
    if (Result.isFailure(verified)) {
      return stop(`the server shows a receipt that ${record.name} did not sign (${verified.failure.message})`)
    }
    const { digest, document } = verified.success
    if (document.incarnation !== record.incarnation) continue
    const isOpen = head === null && record.chain_open === true
    const expected = isOpen ? document.number : (head?.number ?? 0) + 1
    if (document.number < expected) {
      if (head === null || document.number !== head.number) continue
      if (digest !== head.digest) {
        return stop(`${record.name} signed two different receipts number ${document.number}`)
      }
      isHeadShown = true
      continue
    }
    if (document.number > expected && isOldCut(server, document)) {
      head = { number: document.number, digest }
      isHeadShown = true
      receipts.push({ digest, document })
      continue
    }
    // A server that was restored, or dropped what is old, lacks what is known here: all is well if the chain goes on from it.
    const isExcused = server.restored || isOldCut(server, document)
    isHeadShown ||= isExcused && document.number === expected && document.previous === head?.digest
    if (!isHeadShown) break
    if (document.number > expected) {
      return stop(
        `the server withholds receipt ${expected} of ${record.name}: it shows number ${document.number} next`
      )
    }
    if (!isOpen && document.previous !== (head?.digest ?? null)) {
      return stop(`receipt ${document.number} of ${record.name} does not continue the receipt before it`)
    }
    head = { number: document.number, digest }
    receipts.push({ digest, document })
  }
  return isHeadShown
    ? { head, receipts, alarm: null }
    : stop(
        `the server forgot receipt ${record.last_receipt?.number} of ${record.name}, which was verified here`
      )
}

/** A job as a server shows it. */
export interface ShownJob {
  readonly state: OrderState
  readonly receipt: DsseEnvelope | null
}

/** What an operator may believe of a job: the receipt if there is a good one, and everything that is wrong. */
export interface JobJudgement {
  readonly receipt: VerifiedReceipt | null
  readonly alarms: ReadonlyArray<string>
}

/**
 * Judges a job's receipt: by this device, about this very order and payload, in the accepted incarnation, and the same
 * that was shown before. `known` is the digest of the receipt verified for this order earlier, if any.
 */
export const judgeReceipt = (
  engine: Engine,
  record: DeviceRecord,
  order: Opened<WorkOrder>,
  job: ShownJob,
  known: Digest | null
): JobJudgement => {
  const where = `order ${order.document.id} on ${record.name}`
  if (job.receipt === null) {
    const gone =
      known === null ? [] : [`the server no longer shows the receipt of ${where}, which was verified before`]
    return { receipt: null, alarms: gone }
  }
  const verified = verifyReceipt(engine, record.device, record.signing_key, job.receipt)
  if (Result.isFailure(verified)) {
    return {
      receipt: null,
      alarms: [`the receipt of ${where} is not by that device (${verified.failure.message})`]
    }
  }
  const { digest, document } = verified.success
  const alarms: Array<string> = []
  if (document.order !== order.document.id || document.order_digest !== order.digest) {
    alarms.push(`the receipt shown for ${where} is about another order`)
  }
  const isOtherPayload =
    document.payload_digest !== null && document.payload_digest !== order.document.payload.digest
  if (isOtherPayload && document.state !== "rejected") {
    alarms.push(`the receipt of ${where} speaks of another payload than the one that was signed`)
  }
  if (document.incarnation !== record.incarnation) {
    alarms.push(
      `the receipt of ${where} comes from another ledger than the accepted one (a restored backup or a clone)`
    )
  }
  if (known !== null && known !== digest) {
    alarms.push(`the server shows another receipt of ${where} than the one that was verified before`)
  }
  if (document.state !== job.state) {
    alarms.push(`the server calls ${where} ${job.state}, the device's receipt says ${document.state}`)
  }
  return alarms.length === 0 ? { receipt: verified.success, alarms } : { receipt: null, alarms }
}

/** What a server says of a device, as far as it can be held against the device book. */
export interface ServerMemory {
  readonly nextCounter: number
  readonly previous: Digest | null
}

/** Rollouts leave gaps; ten thousand of them, unseen by this operator, leave no more than this. */
const longestLeap = 10_000 * Limits.rolloutReserve

/**
 * Whether the server forgot orders that this operator knows of. A server that was restored from a backup
 * looks like this, and so does one that hides work. One that names a place far above all others would use the device's
 * places up: a device takes nothing below the last one.
 */
export const forgottenBy = (record: DeviceRecord, server: ServerMemory): ReadonlyArray<string> => {
  const alarms: Array<string> = []
  const { last_order, name } = record
  if (server.nextCounter - (last_order?.counter ?? 0) > longestLeap)
    alarms.push(
      `the server would give the next order of ${name} number ${server.nextCounter}, far above the last one known here (${last_order?.counter ?? "none"})`
    )
  if (last_order !== null && server.nextCounter <= last_order.counter) {
    alarms.push(
      `the server forgot orders for ${name}: it would give the next one number ${server.nextCounter}, but ${last_order.counter} were signed`
    )
  } else if (
    last_order !== null &&
    server.nextCounter === last_order.counter + 1 &&
    server.previous !== last_order.digest
  ) {
    alarms.push(
      `the server shows another order number ${last_order.counter} for ${name} than the one that was signed`
    )
  }
  return alarms
}

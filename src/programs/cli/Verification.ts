/**
 * Holding what a server shows of jobs against what was signed and verified here: every order by an operator of the root,
 * every receipt by the device of the book, all receipts in one chain.
 *
 * @module
 */
import { Clock, Effect, Result } from "effect"
import { changeDeviceRecord, deviceRecord } from "../../adapters/operator/DeviceBook.ts"
import { overdueText, owedReceipts } from "../../adapters/operator/DeviceWord.ts"
import { ManagementClient } from "../../adapters/operator/ManagementClient.ts"
import { OperatorHome, readJson, writeJson } from "../../adapters/operator/OperatorHome.ts"
import {
  type ChainExtension,
  extendChain,
  judgeReceipt,
  type VerifiedReceipt
} from "../../adapters/operator/ReceiptChain.ts"
import { type DeviceRecord, SentOrder, sentOrderFile } from "../../adapters/operator/Records.ts"
import { verifyPastOrder } from "../../adapters/operator/TrustStore.ts"
import type { Opened } from "../../crypto/Documents.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import type { DeviceId } from "../../schemas/Ids.ts"
import { Limits } from "../../schemas/Limits.ts"
import type { JobView } from "../../schemas/ManagementApi.ts"
import { isFinal, type WorkOrder } from "../../schemas/WorkOrder.ts"
import { requireRoot } from "./Settings.ts"

/** A job as the server shows it, with what may be believed of it. */
export interface JudgedJob {
  readonly view: JobView
  readonly record: DeviceRecord | undefined
  /** Null where the order itself does not hold. */
  readonly order: Opened<WorkOrder> | null
  readonly name: string | null
  /** The device's word, verified; null where there is none yet, or none to believe. */
  readonly receipt: VerifiedReceipt | null
  readonly alarms: ReadonlyArray<string>
}

/** Keeps a verified receipt beside the order that was sent, once. */
const keepReceipt = (sent: SentOrder | undefined, receipt: VerifiedReceipt) =>
  Effect.gen(function* () {
    if (sent === undefined || sent.receipt !== null || sent.digest !== receipt.document.order_digest) return
    yield* writeJson(sentOrderFile(sent.order), SentOrder, { ...sent, submitted: true, receipt })
  })

const overdue = (
  order: WorkOrder,
  view: JobView,
  record: DeviceRecord,
  nowMs: number
): ReadonlyArray<string> =>
  view.receipt === null && nowMs > order.deadline_at_ms ? [overdueText(record, order)] : []

/** Judges one job: order, receipt, deadline. The chain is looked at by {@link syncReceipts}. */
export const judgeJob = (view: JobView) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const trusted = yield* requireRoot
    const nowMs = yield* Clock.currentTimeMillis
    const record = yield* deviceRecord(view.device)
    const sent = yield* readJson(sentOrderFile(view.id), SentOrder)
    const name = sent?.name ?? null
    const verified = verifyPastOrder(engine, trusted, view.order)
    const flawed = (alarm: string): JudgedJob => ({
      view,
      record,
      order: null,
      name,
      receipt: null,
      alarms: [alarm]
    })
    if (Result.isFailure(verified)) {
      return flawed(
        `order ${view.id} is not signed by an operator of your root (${verified.failure.message})`
      )
    }
    const order: Opened<WorkOrder> = verified.success
    const { document } = order
    const isShownRightly =
      document.id === view.id && document.device === view.device && document.counter === view.counter
    if (!isShownRightly || order.digest !== view.digest) {
      return flawed(`the server shows order ${view.id} with the signature of another one`)
    }
    if (sent !== undefined && sent.digest !== order.digest) {
      return flawed(`order ${view.id} is not the one that was signed here`)
    }
    if (record === undefined) {
      return {
        ...flawed(
          `the device of order ${view.id} is not in your device book: its receipts cannot be checked`
        ),
        order
      }
    }
    const judged = judgeReceipt(engine, record, order, view, sent?.receipt?.digest ?? null)
    if (judged.receipt !== null) yield* keepReceipt(sent, judged.receipt)
    return {
      view,
      record,
      order,
      name,
      receipt: judged.receipt,
      alarms: [...judged.alarms, ...overdue(document, view, record, nowMs)]
    } satisfies JudgedJob
  })

/** Writes a longer chain into the book, and each receipt of it beside its order; gives what does not fit. */
const takeExtension = (device: DeviceId, record: DeviceRecord, extension: ChainExtension) =>
  Effect.gen(function* () {
    const alarms: Array<string> = []
    if (extension.receipts.length === 0) return alarms
    yield* changeDeviceRecord(device, (current) =>
      current.incarnation === record.incarnation &&
      (current.last_receipt?.number ?? 0) < (extension.head?.number ?? 0)
        ? { ...current, last_receipt: extension.head }
        : current
    )
    for (const receipt of extension.receipts) {
      if (receipt.document.order === null) continue
      const sent = yield* readJson(sentOrderFile(receipt.document.order), SentOrder)
      if (sent !== undefined && sent.receipt !== null && sent.receipt.digest !== receipt.digest) {
        alarms.push(`the device signed two different receipts for order ${sent.order}`)
      }
      yield* keepReceipt(sent, receipt)
    }
    return alarms
  })

/**
 * Follows a device's chain of receipts to its end, page by page, and moves the book's head along. Gives the alarms of what
 * does not fit.
 */
export const syncReceipts = (device: DeviceId) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const client = yield* ManagementClient
    const home = yield* OperatorHome
    const alarms: Array<string> = []
    for (;;) {
      const record = yield* deviceRecord(device)
      if (record === undefined) return alarms
      const from = record.last_receipt?.number ?? 1
      const page = yield* client.call("get the device's receipts", (api) =>
        api.devices.receipts({ params: { device }, query: { from } })
      )
      const extension = extendChain(
        engine,
        record,
        page.receipts.map((receipt) => receipt.envelope),
        {
          prunedBelow: page.pruned_below,
          restored: page.restored_at_ms !== null,
          nowMs: yield* Clock.currentTimeMillis
        }
      )
      alarms.push(...(yield* home.alone(takeExtension(device, record, extension))))
      if (extension.alarm !== null) return [...alarms, extension.alarm]
      // What is not full is the last one; there may be none behind a full one either.
      if (page.receipts.length < Limits.receiptsPerPage || extension.receipts.length === 0) {
        const known = (yield* deviceRecord(device)) ?? record
        return [...alarms, ...owedReceipts(known, yield* Clock.currentTimeMillis)]
      }
    }
  })

/**
 * Whether a verified receipt stands in the chain: at or below the head, and the very one of the head if it is that.
 * A receipt above the head, though the chain was just followed to its end, is one the server hides from the chain.
 */
export const isInChain = (record: DeviceRecord | undefined, receipt: VerifiedReceipt): boolean => {
  const head = record?.last_receipt
  if (head === null || head === undefined || receipt.document.number > head.number) return false
  return receipt.document.number < head.number || receipt.digest === head.digest
}

/** Judges a job and its device's chain. */
export const judgeWithChain = (view: JobView) =>
  Effect.gen(function* () {
    const judged = yield* judgeJob(view)
    if (judged.record === undefined) return judged
    const alarms = [...judged.alarms, ...(yield* syncReceipts(view.device))]
    const record = yield* deviceRecord(view.device)
    const { receipt } = judged
    if (receipt !== null && alarms.length === 0 && !isInChain(record, receipt)) {
      alarms.push(
        `the receipt of order ${view.id} does not stand in the chain of receipts that the server shows`
      )
    }
    return { ...judged, record, receipt: alarms.length === 0 ? receipt : null, alarms }
  })

/** One word for a table: how far the device's word goes. */
export const standing = (job: JudgedJob): string => {
  if (job.alarms.length > 0) return "ALARM"
  if (job.receipt !== null) return "verified"
  return isFinal(job.view.state) ? "no receipt yet" : "-"
}

/**
 * What a server does not show: orders of this home that it leaves out, and a sequence that is not the one that was
 * signed. Looked for from the operator's own records, since a server that lies leaves things out of its lists.
 *
 * @module
 */
import { Clock, Effect, Result } from "effect"
import { deviceRecord } from "../../adapters/operator/DeviceBook.ts"
import { overdueText } from "../../adapters/operator/DeviceWord.ts"
import { ManagementClient } from "../../adapters/operator/ManagementClient.ts"
import { OperatorHome, readJson } from "../../adapters/operator/OperatorHome.ts"
import { forgottenBy } from "../../adapters/operator/ReceiptChain.ts"
import { SentOrder } from "../../adapters/operator/Records.ts"
import { verifyOrder } from "../../crypto/Trust.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import type { DeviceId, OrderId } from "../../schemas/Ids.ts"
import { isAborted } from "./RolloutVerification.ts"
import { requireRoot } from "./Settings.ts"

/** An order that nobody heard of for so long after its deadline has been mourned enough. */
const mournedMs = 30 * 86_400_000
/** Orders looked at in one go, newest first. */
const lookedAt = 1_000

/** What is wrong with one sent order that the lists did not show: no receipt by its deadline, or forgotten. */
const judgeUnseen = (sent: SentOrder, nowMs: number) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const client = yield* ManagementClient
    const { root } = yield* requireRoot
    const record = yield* deviceRecord(sent.device)
    const order = verifyOrder(engine, root, sent.envelope)
    if (record?.status !== "accepted" || Result.isFailure(order)) return []
    // What was signed for a ledger that counts no more has no receipt to wait for.
    if (order.success.document.issued_at_ms < (record.anew_at_ms ?? 0)) return []
    const shown = yield* Effect.result(
      client.call("ask for the job", (api) => api.jobs.show({ params: { id: sent.order }, query: {} }))
    )
    if (Result.isFailure(shown))
      return shown.failure.kind === "not_found"
        ? [`the server forgot order ${sent.order} for ${record.name}, which it had taken`]
        : []
    const { receipt, state } = shown.success
    const isOver = nowMs > sent.deadline_at_ms && receipt === null
    // A cancel that came before the device took the order leaves no receipt.
    if (!isOver || state === "canceled") return []
    const isWithdrawn =
      state === "removed" &&
      sent.rollout !== undefined &&
      (yield* Effect.orElseSucceed(isAborted(sent.rollout), () => false))
    return isWithdrawn ? [] : [overdueText(record, order.success.document)]
  })

/** Alarms over this home's own orders that are not among those already judged. */
export const unseenOrders = (judged: ReadonlySet<OrderId>) =>
  Effect.gen(function* () {
    const home = yield* OperatorHome
    const nowMs = yield* Clock.currentTimeMillis
    const alarms: Array<string> = []
    for (const name of (yield* home.list("orders")).toReversed().slice(0, lookedAt)) {
      const sent = yield* readJson(`orders/${name}`, SentOrder)
      const isOpen = sent?.submitted === true && sent.receipt === null && !judged.has(sent.order)
      if (sent === undefined || !isOpen || nowMs > sent.deadline_at_ms + mournedMs) continue
      alarms.push(...(yield* judgeUnseen(sent, nowMs)))
    }
    return alarms
  })

/** Alarms over the place the server would give a device's next order. */
export const forgottenOrders = (device: DeviceId) =>
  Effect.gen(function* () {
    const client = yield* ManagementClient
    const record = yield* deviceRecord(device)
    if (record === undefined) return []
    const { next_counter, previous } = yield* client.call("ask for the device's sequence", (api) =>
      api.devices.sequence({ params: { device } })
    )
    return forgottenBy(record, { nextCounter: next_counter, previous })
  })

/** How an order's progress is told to the server. */
import type { LedgerOrder } from "../ports/Ledger.ts"
import type { OrderProgress, OrderState } from "../schemas/WorkOrder.ts"

const stepsPerState = 1_000

/**
 * The version of a progress report: the ledger's version of the state, with the share of bytes done below it, so that a
 * later report is always the higher one.
 */
export const progressVersion = (version: number, doneBytes: number, totalBytes: number): number =>
  version * stepsPerState +
  (totalBytes === 0 ? 0 : Math.min(Math.floor((doneBytes / totalBytes) * stepsPerState), stepsPerState - 1))

/** A step into a state, without bytes. */
export const stepInto = (
  order: OrderProgress["order"],
  state: OrderState,
  version: number,
  atMs: number
): OrderProgress => ({
  order,
  state,
  version: progressVersion(version, 0, 0),
  at_ms: atMs,
  done_bytes: null,
  total_bytes: null
})

/** So many bytes done within a state. */
export const bytesDone = (
  step: OrderProgress,
  version: number,
  doneBytes: number,
  totalBytes: number,
  atMs: number
): OrderProgress => ({
  ...step,
  version: progressVersion(version, doneBytes, totalBytes),
  at_ms: atMs,
  done_bytes: doneBytes,
  total_bytes: totalBytes
})

/** Between two reports of bytes, from the beginning of a download to its later hours. */
const reportGapMs = { minimum: 1_000, maximum: 30_000 }
/** A report comes after this share of the time that the download has taken. */
const reportShare = 0.25

/**
 * Says of each step whether the server is to hear of it. Of bytes it hears every second in the beginning and ever more
 * seldom then, down to twice a minute: whoever looks wants a short download now and a long one roughly, and a report costs
 * a slow line as much as some kilobytes of payload.
 */
export const progressRhythm = () => {
  let begunAtMs = 0
  let toldAtMs = 0
  return (progress: OrderProgress): boolean => {
    const { at_ms, done_bytes } = progress
    if (done_bytes === null) begunAtMs = at_ms
    const gapMs = Math.max(
      reportGapMs.minimum,
      Math.min(reportGapMs.maximum, (at_ms - begunAtMs) * reportShare)
    )
    if (done_bytes !== null && at_ms - toldAtMs < gapMs) return false
    toldAtMs = at_ms
    return true
  }
}

/** What the ledger says of an order nobody is working on. */
export const resting = (row: LedgerOrder, atMs: number): OrderProgress =>
  stepInto(row.order.id, row.state, row.version, atMs)

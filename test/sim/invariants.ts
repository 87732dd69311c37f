/** What must hold after any day, whatever happened in it. */
import { expect } from "@effect/vitest"
import { Effect, Result } from "effect"
import { concatBytes } from "../../src/crypto/Bytes.ts"
import { digestOf } from "../../src/crypto/Documents.ts"
import { verifyReceipt } from "../../src/crypto/Trust.ts"
import { Limits } from "../../src/schemas/Limits.ts"
import { firstSequence } from "../../src/schemas/OutputFrames.ts"
import type { Receipt } from "../../src/schemas/Receipt.ts"
import { isFinal } from "../../src/schemas/WorkOrder.ts"
import { device as deviceId, deviceKeys, engine } from "../actors/support/Parties.ts"
import type { Day, Submitted } from "./World.ts"

/** The receipts the server holds, verified, in their order; the chain must be whole. */
const chainOf = Effect.fnUntraced(function* (day: Day) {
  const { store } = day.server.life as NonNullable<Day["server"]["life"]>
  const rows = yield* store.receipts(deviceId, 1, 10_000)
  const receipts: Array<Receipt> = []
  let previous: string | null = null
  for (const [index, row] of rows.entries()) {
    const { digest, document } = Result.getOrThrow(
      verifyReceipt(engine, deviceId, deviceKeys.signingKey, row.envelope)
    )
    expect(document.number).toBe(index + 1)
    expect(document.previous).toBe(previous)
    previous = digest
    receipts.push(document)
  }
  return receipts
})

/** Nothing is run twice, unless its package allows it; what succeeded was run to its end. */
const checkRuns = (day: Day, entry: Submitted, receipt: Receipt) => {
  const runs = day.device.host.runs.filter((run) => run.order === entry.order.id)
  expect(runs.length).toBeLessThanOrEqual(entry.plan.idempotent === true ? Limits.runAttempts : 1)
  expect(runs.length).toBeLessThanOrEqual(receipt.attempts)
  const ended = ["succeeded", "failed", "timed_out"].includes(receipt.state)
  if (ended) expect(runs.at(-1)?.endedAtMs).not.toBeNull()
  // One after the other: an attempt begins only when the one before is over.
  for (const [index, run] of runs.entries()) {
    const next = runs[index + 1]
    if (next !== undefined) expect(next.startedAtMs).toBeGreaterThanOrEqual(run.endedAtMs ?? run.startedAtMs)
  }
}

/** What the receipt says of output and artifacts is what the server holds. */
const checkResults = Effect.fnUntraced(function* (day: Day, entry: Submitted, receipt: Receipt) {
  const { store } = day.server.life as NonNullable<Day["server"]["life"]>
  if (receipt.output !== null) {
    const first = firstSequence(receipt.attempts)
    const chunks = yield* store.output(entry.order.id, first, receipt.output.chunks + 1)
    expect(chunks.map((chunk) => chunk.sequence)).toEqual(
      Array.from({ length: receipt.output.chunks }, (_, index) => first + index)
    )
    const digests = chunks.map((chunk) => engine.sha256(chunk.bytes))
    expect(digestOf(engine, concatBytes(...digests))).toBe(receipt.output.digest)
  }
  if (receipt.artifacts !== null) {
    const blob =
      day.server.blobs.get(`artifacts/${entry.order.id}`) ??
      [...day.server.blobs].find(([key]) => key.includes(entry.order.id))?.[1]
    expect(blob?.complete).toBe(true)
    expect(blob === undefined ? null : digestOf(engine, blob.bytes)).toBe(receipt.artifacts.digest)
  }
})

/** Checks a whole day and gives its receipts. */
export const check = Effect.fnUntraced(function* (day: Day) {
  const receipts = yield* chainOf(day)
  for (const entry of day.submitted) {
    const about = receipts.filter((receipt) => receipt.order === entry.order.id)
    expect(about, `receipts of ${entry.order.id}`).toHaveLength(1)
    const receipt = about[0] as Receipt
    expect(receipt.order_digest).toBe(entry.digest)
    const job = day.jobs.get(entry.order.id)
    expect(job?.state, `the server's state of ${entry.order.id}`).toBe(receipt.state)
    expect(job !== undefined && isFinal(job.state)).toBe(true)
    checkRuns(day, entry, receipt)
    yield* checkResults(day, entry, receipt)
  }
  expect(day.device.host.files.size).toBe(0)
  expect(day.device.host.spool.size).toBe(0)
  return receipts
})

/**
 * How the server tells that a device's ledger is not the one it knew: restored from a backup, or living twice. Pure
 * functions over what a poll says and what was told before.
 *
 * Requests of one device overtake each other, so a poll is judged only by what the device told by its own clock some
 * seconds before it made the poll: that much its ledger must hold, whatever is still on its way.
 */
import { decodeBase64 } from "../crypto/Base64.ts"
import { fromUtf8 } from "../crypto/Bytes.ts"
import type { DeviceObjection, DeviceRow, Standing } from "../ports/FleetStore.ts"
import type { HighWater, PollRequest } from "../schemas/DeviceApi.ts"
import type { LifeId } from "../schemas/Ids.ts"

/** Between reading the ledger and signing the request, a slow device may take this long. */
const marginMs = 5_000

/** What one poll says, and when it was made by the device's clock. */
export interface Heard {
  readonly request: PollRequest
  readonly createdMs: number
}

/**
 * When the device looked at its ledger for a poll, by its own clock. A poll that did not get through under one address is
 * signed again for the next one, maybe a minute later: what it says is as old as the statement in it. The request's own
 * signature covers that.
 */
const lookedMs = ({ createdMs, request }: Heard): number => {
  const bytes = decodeBase64(request.statement.payload)
  const text = bytes === undefined ? undefined : fromUtf8(bytes)
  const atMs = Number(/"at_ms":([0-9]{1,16})/.exec(text ?? "")?.[1] ?? createdMs)
  return Math.min(createdMs, atMs)
}

/** What a life of the device's actor remembers beside the store. */
export interface Memory {
  /** The highest place a poll of the accepted ledger showed. */
  readonly mark: { readonly at: HighWater; readonly createdMs: number } | null
  /** When another ledger than the accepted one was last heard. */
  readonly rivalMs: number | null
  /** The lives of the accepted ledger's program that were heard. */
  readonly lives: Lives
}

/**
 * Lives of one ledger's program. A program that is started again leaves its old life for ever; two copies of a device, down
 * to the last byte, take turns. What was only held up on its way cannot be taken for a copy: it was made before the new
 * life was heard, and a program has one poll on its way at a time.
 */
export interface Lives {
  /** The one that began last. */
  readonly current: { readonly life: LifeId; readonly sinceMs: number } | null
  /** Earlier ones, by the highest turn heard since they were left; the last few. */
  readonly left: ReadonlyMap<LifeId, { readonly turn: number; readonly heard: number }>
  /** Whether one that was left went on. */
  readonly isTwice: boolean
}

export const noLives: Lives = { current: null, left: new Map(), isTwice: false }

/** So many earlier lives are remembered. */
const livesKept = 8
/** Turns that a life must go on for after it was left, to count as living. */
const turnsOfTheLiving = 2

/** What is known of lives after a poll of the accepted ledger. */
export const livesAfter = (lives: Lives, { createdMs, request: { life, turn } }: Heard): Lives => {
  const { current, left } = lives
  if (current === null) return { ...lives, current: { life, sinceMs: createdMs } }
  if (current.life === life) return lives
  const before = left.get(life)
  // An earlier life that was never heard, and is heard late: it must not pass for the one that came after it.
  if (before === undefined && createdMs < current.sinceMs) return lives
  if (before === undefined) {
    const kept = [...left, [current.life, { turn: -1, heard: 0 }] as const].slice(-livesKept)
    return { ...lives, current: { life, sinceMs: createdMs }, left: new Map(kept) }
  }
  if (turn <= before.turn || createdMs <= current.sinceMs + marginMs) return lives
  const heard = before.heard + 1
  return {
    current,
    left: new Map(left).set(life, { turn, heard }),
    isTwice: lives.isTwice || heard >= turnsOfTheLiving
  }
}

const isBelow = (
  mark: HighWater | null,
  place: { readonly rootVersion: number; readonly counter: number }
): boolean =>
  mark === null ||
  (mark.root_version === place.rootVersion
    ? mark.counter < place.counter
    : mark.root_version < place.rootVersion)

/** Whether `next` stands above `mark`. */
export const isHigher = (next: HighWater, mark: HighWater | null): boolean =>
  isBelow(mark, { rootVersion: next.root_version, counter: next.counter })

const fellBack = (heard: Heard, standing: Standing, memory: Memory): boolean => {
  const { request } = heard
  const atMs = lookedMs(heard)
  const counts = (toldMs: number) => atMs > toldMs + marginMs
  const { mark } = memory
  return (
    (standing.position !== null &&
      counts(standing.position.atMs) &&
      isBelow(request.high_water, standing.position)) ||
    (standing.receipt !== null &&
      counts(standing.receipt.atMs) &&
      request.last_receipt < standing.receipt.number) ||
    (mark !== null &&
      counts(mark.createdMs) &&
      isBelow(request.high_water, { rootVersion: mark.at.root_version, counter: mark.at.counter }))
  )
}

/**
 * Whether a poll of another ledger than the accepted one was made before the accepted one enrolled: it was only held up
 * on its way, and says nothing about who lives now.
 */
export const isLeftOver = (
  { createdMs, request }: Heard,
  { admitted, request: enrolment, requestedAtMs }: DeviceRow
): boolean =>
  request.incarnation !== admitted?.incarnation &&
  enrolment.incarnation === admitted?.incarnation &&
  createdMs <= requestedAtMs + marginMs

/**
 * What is to be held against an accepted device after this poll. Once there is an objection only a new acceptance takes
 * it away; `cloned` outweighs the other.
 */
export const objectionTo = (
  heard: Heard,
  row: DeviceRow,
  standing: Standing,
  memory: Memory
): DeviceObjection | null => {
  if (row.objection === "cloned") return "cloned"
  const accepted = row.admitted?.incarnation
  if (heard.request.incarnation !== accepted) return row.objection ?? "ledger_rolled_back"
  const { rivalMs } = memory
  const rivalEnrolled = row.request.incarnation === accepted ? null : row.requestedAtMs
  const afterRival = [rivalMs, rivalEnrolled].some((ms) => ms !== null && heard.createdMs > ms + marginMs)
  if (afterRival || memory.lives.isTwice) return "cloned"
  return row.objection ?? (fellBack(heard, standing, memory) ? "ledger_rolled_back" : null)
}

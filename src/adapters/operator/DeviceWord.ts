/**
 * What a device says of itself with every poll, as an operator holds it against the device book: its own signature tells a
 * device that is away from a server that withholds, and names the key to encrypt to. Pure; an alarm is a sentence for a
 * person to read.
 *
 * @module
 */
import { Result } from "effect"
import type { Engine } from "../../crypto/Engine.ts"
import { verifyDeviceStatement } from "../../crypto/Trust.ts"
import type { HighWater } from "../../schemas/DeviceApi.ts"
import type { DeviceStatement } from "../../schemas/DeviceStatement.ts"
import type { DsseEnvelope } from "../../schemas/Dsse.ts"
import type { WorkOrder } from "../../schemas/WorkOrder.ts"
import type { DeviceRecord } from "./Records.ts"

/** What a word changes in the book, and what is wrong with it. */
export interface WordJudgement {
  readonly record: DeviceRecord
  readonly alarms: ReadonlyArray<string>
}

/** A receipt that a device wrote is on the server within this, when nothing is in the way. */
const deliveryMs = 15 * 60_000

type Place = Pick<HighWater, "root_version" | "counter">

const isLower = (mark: Place | null, than: Place | null): boolean =>
  than !== null &&
  (mark === null ||
    mark.root_version < than.root_version ||
    (mark.root_version === than.root_version && mark.counter < than.counter))

/** What cannot be, after the word that was heard before. */
const contradictions = (record: DeviceRecord, word: DeviceStatement): ReadonlyArray<string> => {
  const alarms: Array<string> = []
  const { last_word: before, name } = record
  if (word.key_version === (record.key_version ?? 1) && word.recipient !== record.recipient)
    alarms.push(`${name} signed two different encryption keys of version ${word.key_version}`)
  if (before === undefined || before.incarnation !== word.incarnation) return alarms
  if (isLower(word.high_water, before.high_water) || word.last_receipt < before.last_receipt)
    alarms.push(
      `${name} knows less than it said before: its ledger was restored from a backup, or there is a copy of it. Find out which, then: postern devices re-enrol ${name}`
    )
  const { high_water } = word
  const { last_order } = record
  const isSamePlace =
    high_water !== null &&
    last_order !== null &&
    high_water.root_version === last_order.root_version &&
    high_water.counter === last_order.counter
  if (isSamePlace && high_water.order_digest !== last_order.digest)
    alarms.push(`${name} took another order number ${last_order.counter} than the one that was signed`)
  return alarms
}

/** Notes the highest receipt the device claims, with the moment since when the server owes it. */
const claimed = (record: DeviceRecord, word: DeviceStatement, nowMs: number): DeviceRecord["claimed"] => {
  const known = record.last_receipt?.number ?? 0
  if (word.incarnation !== record.incarnation || word.last_receipt <= known) return undefined
  const before = record.claimed
  return before !== undefined && before.last_receipt > known
    ? before
    : { last_receipt: word.last_receipt, since_ms: nowMs }
}

/**
 * Takes in a device's word as the server shows it. An older one than was heard before changes nothing; one that the
 * device did not sign, or that goes back to an older encryption key, is an alarm.
 */
export const judgeWord = (
  engine: Engine,
  record: DeviceRecord,
  envelope: DsseEnvelope | null,
  nowMs: number
): WordJudgement => {
  const { device, name, signing_key } = record
  const keyVersion = record.key_version ?? 1
  if (envelope === null) {
    const isGone = record.last_word !== undefined
    return { record, alarms: isGone ? [`the server no longer shows what ${name} said of itself`] : [] }
  }
  const verified = verifyDeviceStatement(engine, device, signing_key, envelope)
  if (Result.isFailure(verified)) {
    const reason = verified.failure.message
    return { record, alarms: [`the server shows a statement that ${name} did not sign (${reason})`] }
  }
  const word = verified.success.document
  if (word.key_version < keyVersion) {
    const alarm = `the server shows version ${word.key_version} of ${name}'s encryption key after version ${keyVersion}: it is not used`
    return { record, alarms: [alarm] }
  }
  if (word.at_ms < (record.last_word?.at_ms ?? 0)) return { record, alarms: [] }
  const alarms = contradictions(record, word)
  const { claimed: _, ...rest } = record
  const owed = claimed(record, word, nowMs)
  const { at_ms, high_water, incarnation, last_receipt } = word
  const isNewKey = word.key_version > keyVersion
  return {
    record: {
      ...rest,
      ...(isNewKey ? { key_version: word.key_version, recipient: word.recipient } : {}),
      ...(owed === undefined ? {} : { claimed: owed }),
      last_word: { at_ms, high_water, incarnation, last_receipt }
    },
    alarms
  }
}

/** Receipts the device says it wrote, which the server has not shown for too long. The chain must have been followed. */
export const owedReceipts = (record: DeviceRecord, nowMs: number): ReadonlyArray<string> => {
  const { claimed: owed, last_receipt, name } = record
  const shown = last_receipt?.number ?? 0
  return owed !== undefined && owed.last_receipt > shown && nowMs > owed.since_ms + deliveryMs
    ? [
        `${name} had written receipt ${owed.last_receipt} by its own signed word, the server shows none above ${shown}: it withholds receipts, or the device cannot deliver them`
      ]
    : []
}

/** Why there is no receipt by the deadline, as far as the device's own word tells. */
export const overdueText = (record: DeviceRecord, order: WorkOrder): string => {
  const { last_word: word, name } = record
  const late = `no receipt for order ${order.id} on ${name} by its deadline`
  if (word === undefined || word.incarnation !== record.incarnation)
    return `${late}: the device is away, or the server withholds something`
  if (word.at_ms < order.deadline_at_ms) return `${late}: the device was last heard before it`
  return isLower(word.high_water, order)
    ? `${late}: the device polled after it and had not been given the order. The server withholds it, or the device takes none now; see postern devices show ${name}`
    : `${late}: the device polled after it and had taken the order. Its receipt is not written yet, or the server withholds it`
}

/**
 * What other operators of the root decided about devices, taken into this operator's device book. It is their signature
 * that counts, under the newest root, never the server's word: what somebody signed who is no operator any more is not
 * taken.
 *
 * @module
 */
import { Clock, Effect, Result } from "effect"
import {
  acceptedDevice,
  chooseDevice,
  deviceRecord,
  deviceRecords,
  writeDeviceRecord
} from "../../adapters/operator/DeviceBook.ts"
import { judgeWord } from "../../adapters/operator/DeviceWord.ts"
import { ManagementClient } from "../../adapters/operator/ManagementClient.ts"
import { OperatorHome } from "../../adapters/operator/OperatorHome.ts"
import { type DeviceRecord, invitationFile } from "../../adapters/operator/Records.ts"
import { type TrustedRoot, trustedRoot } from "../../adapters/operator/TrustStore.ts"
import { verifyAdmission, verifyEnrolment, verifyPreauthorisation } from "../../crypto/Trust.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import type { Admission } from "../../schemas/Enrolment.ts"
import type { DeviceView } from "../../schemas/ManagementApi.ts"
import type { TrustRoot } from "../../schemas/TrustRoot.ts"
import { raise } from "./Alarms.ts"
import { allDevices } from "./Lists.ts"
import { say } from "./Screen.ts"
import { visible } from "./Text.ts"

const statusOf = { accept: "accepted", reject: "rejected", revoke: "revoked" } as const

/**
 * A device of the book that another operator accepted again, and not to give it another name. Where its ledger is the
 * same, that ledger was set back: the chain of receipts goes on from an earlier one, and its word from less.
 */
const isAnew = (decision: Admission, known: DeviceRecord): boolean =>
  known.incarnation !== decision.incarnation ||
  (decision.decision === "accept" && known.status === "accepted" && known.name === decision.name)

const recordOf = (decision: Admission, known: DeviceRecord | undefined): DeviceRecord => {
  const isSameLedger = known?.incarnation === decision.incarnation
  const record: DeviceRecord = {
    ...known,
    type: "postern/device-record/v1",
    device: decision.device,
    name: decision.name,
    status: statusOf[decision.decision],
    signing_key: decision.signing_key,
    // A key that followed the first was signed by the device itself, and stays.
    recipient: known?.key_version === undefined ? decision.recipient : known.recipient,
    server: decision.server,
    incarnation: decision.incarnation,
    admission_sequence: decision.sequence,
    admitted_at_ms: decision.issued_at_ms,
    last_order: known?.last_order ?? null,
    last_receipt: known?.last_receipt ?? null
  }
  if (known === undefined || !isAnew(decision, known)) return record
  const { chain_open: _open, claimed: _claimed, last_word: _word, ...rest } = record
  return {
    ...rest,
    // Another ledger begins another chain of receipts.
    last_receipt: null,
    anew_at_ms: decision.issued_at_ms,
    ...(isSameLedger ? { chain_open: true } : {})
  }
}

const signersOf = (root: TrustRoot, signers: ReadonlySet<string>): string =>
  Object.entries(root.keys)
    .filter(([id]) => signers.has(id))
    .map(([, key]) => key.label)
    .join(" and ")

/** Takes in one decision, if operators of the newest root signed it and the book has none as new. */
const takeDecision = (root: TrustRoot, view: DeviceView) =>
  Effect.gen(function* () {
    if (view.admission === null) return
    const engine = yield* CryptoEngine
    const verified = verifyAdmission(engine, root, view.admission)
    if (Result.isFailure(verified) || verified.success.document.device !== view.device) return
    const decision = verified.success.document
    const known = yield* deviceRecord(view.device)
    if (known !== undefined && known.admission_sequence >= decision.sequence) return
    if (!root.servers.some(({ id }) => id === decision.server)) return
    const record = recordOf(decision, known)
    yield* writeDeviceRecord(record)
    yield* say(
      `${visible(signersOf(root, verified.success.signers))} ${record.status} ${record.name}; it stands in your device book now.`
    )
  })

/** Takes in a device that came in by a pre-authorisation: by its own proof and the operators' signature, both checked here. */
const takePreauthorised = ({ firstDigest, root }: TrustedRoot, view: DeviceView) =>
  Effect.gen(function* () {
    if (view.preauthorisation === null || (yield* deviceRecord(view.device)) !== undefined) return []
    const engine = yield* CryptoEngine
    const home = yield* OperatorHome
    const enrolment = verifyEnrolment(engine, view.enrolment)
    const signed = verifyPreauthorisation(engine, root, view.preauthorisation)
    const refuse = (why: string) => [
      `the server let ${view.device} in, but ${why}. Look at it: postern devices show ${view.device}`
    ]
    if (Result.isFailure(enrolment)) return refuse("its enrolment does not hold")
    if (Result.isFailure(signed))
      return refuse("no operator of your root stands behind its pre-authorisation")
    const request = enrolment.success.document
    const { issued_at_ms, name, root_digest, server, subject } = signed.success.document
    const isFor = subject === request.device || subject === request.invitation?.id
    const isOurs = root_digest === firstDigest && request.root_digest === firstDigest
    if (request.device !== view.device || !isFor) return refuse("its pre-authorisation is for another device")
    if (!isOurs || server !== request.server || !root.servers.some(({ id }) => id === server))
      return refuse("its pre-authorisation is for another fleet")
    const records = yield* deviceRecords
    const twin = records.find((record) => record.invitation === subject)
    if (twin !== undefined) return refuse(`${twin.name} came in by the same invitation before`)
    if (records.some((record) => record.name === name && record.status === "accepted"))
      return refuse(`your device book has another device called ${name}`)
    const invitation = request.invitation?.id === subject ? request.invitation.id : undefined
    yield* writeDeviceRecord({
      type: "postern/device-record/v1",
      device: request.device,
      name,
      status: "accepted",
      signing_key: request.signing_key,
      recipient: request.recipient,
      server,
      incarnation: request.incarnation,
      admission_sequence: 0,
      admitted_at_ms: issued_at_ms,
      last_order: null,
      last_receipt: null,
      ...(invitation === undefined ? {} : { invitation })
    })
    if (invitation !== undefined) yield* home.remove(invitationFile(invitation))
    yield* say(
      `${name} came in as ${visible(signersOf(root, signed.success.signers))} pre-authorised; it stands in your device book now.`
    )
    return []
  })

/** Takes in what the device says of itself: where it stands, and its newest encryption key. */
const takeWord = (view: DeviceView) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const record = yield* deviceRecord(view.device)
    if (record?.status !== "accepted" || view.status !== "accepted") return []
    const judged = judgeWord(engine, record, view.statement, yield* Clock.currentTimeMillis)
    if (judged.record !== record) yield* writeDeviceRecord(judged.record)
    if (judged.record.recipient !== record.recipient)
      yield* say(`${record.name} has a new encryption key, version ${judged.record.key_version}.`)
    return judged.alarms
  })

/**
 * Takes in what other operators decided about these devices, beforehand too, and what the devices say of themselves.
 * Gives the alarms, by device. Not to be run inside the home's lock.
 */
export const takeDecisions = (views: ReadonlyArray<DeviceView>) =>
  Effect.gen(function* () {
    const home = yield* OperatorHome
    const trusted = yield* trustedRoot
    const alarms = new Map<string, ReadonlyArray<string>>()
    if (trusted === undefined || views.length === 0) return alarms
    const take = Effect.fnUntraced(function* (view: DeviceView) {
      yield* takeDecision(trusted.root, view)
      const found = [...(yield* takePreauthorised(trusted, view)), ...(yield* takeWord(view))]
      if (found.length > 0) alarms.set(view.device, found)
    })
    yield* home.alone(Effect.forEach(views, take, { discard: true }))
    return alarms
  })

/**
 * The accepted device that a text means, with its newest key; one that is not in the book is looked for among the
 * decisions of others.
 */
export const deviceToWork = (text: string) =>
  Effect.gen(function* () {
    const client = yield* ManagementClient
    const here = yield* Effect.result(acceptedDevice(text))
    if (Result.isSuccess(here)) {
      const { device } = here.success
      const view = yield* client.call("look at the device", (api) => api.devices.show({ params: { device } }))
      yield* raise((yield* takeDecisions([view])).get(device) ?? [])
      return yield* acceptedDevice(device)
    }
    const devices = yield* allDevices()
    const meant = yield* Effect.result(chooseDevice(text, devices))
    if (Result.isSuccess(meant)) {
      const { device } = meant.success
      yield* raise((yield* takeDecisions([meant.success])).get(device) ?? [])
    }
    return yield* acceptedDevice(text)
  })

/**
 * Deciding about a device: its enrolment is verified, its proof or claim code checked, and the operator's decision signed.
 *
 * @module
 */
import { Clock, Effect, Option, Result } from "effect"
import { deviceRecord, writeDeviceRecord } from "../../adapters/operator/DeviceBook.ts"
import { ManagementClient } from "../../adapters/operator/ManagementClient.ts"
import { OperatorHome, readJson } from "../../adapters/operator/OperatorHome.ts"
import { type DeviceRecord, InvitationRecord, invitationFile } from "../../adapters/operator/Records.ts"
import { verifyPastAdmission } from "../../adapters/operator/TrustStore.ts"
import { claimCode } from "../../crypto/IdentityKeys.ts"
import { verifyEnrolment } from "../../crypto/Trust.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import type { Admission, EnrolmentRequest } from "../../schemas/Enrolment.ts"
import { Name } from "../../schemas/Ids.ts"
import type { DeviceView } from "../../schemas/ManagementApi.ts"
import { askLine, confirm } from "./Ask.ts"
import { failure } from "./Failure.ts"
import { acceptedByFormer } from "./FormerOperators.ts"
import { say } from "./Screen.ts"
import { requireRoot } from "./Settings.ts"
import { visible } from "./Text.ts"
import { unlocked } from "./Unlock.ts"

export type Decision = Admission["decision"]

/** A device's request, proved to be by the device it names, for this root and this server. */
export const provedRequest = (view: DeviceView) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const { firstDigest, root } = yield* requireRoot
    const verified = verifyEnrolment(engine, view.enrolment)
    if (Result.isFailure(verified)) {
      return yield* failure(
        `ALARM: the enrolment of ${view.device} does not hold (${verified.failure.message}). Do not accept it`
      )
    }
    const request = verified.success.document
    if (request.device !== view.device) {
      return yield* failure(
        `ALARM: the server shows the enrolment of ${request.device} under ${view.device}. Do not accept it`
      )
    }
    if (request.root_digest !== firstDigest) {
      return yield* failure(
        `${view.device} was given another trust root than yours (${request.root_digest}). It belongs to somebody else, or was deceived`
      )
    }
    if (!root.servers.some((server) => server.id === request.server)) {
      return yield* failure(
        `${view.device} enrolled at the server ${request.server}, which is not in your trust root`
      )
    }
    return request
  })

/** The invitation a request was made with, if it is ours and still good. That it is proved was verified with the request. */
const ownInvitation = (request: EnrolmentRequest, nowMs: number) =>
  Effect.gen(function* () {
    if (request.invitation === null) return undefined
    const record = yield* readJson(invitationFile(request.invitation.id), InvitationRecord)
    return record === undefined || record.expires_at_ms < nowMs ? undefined : record
  })

/** The code that a device must show if it was given this operator's root by a server of that root. */
export const expectedClaimCode = (request: EnrolmentRequest) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const { firstDigest } = yield* requireRoot
    return claimCode(engine, { device: request.device, rootDigest: firstDigest, server: request.server })
  })

/** Compares the claim code: with the flag's, or by the person's eyes. */
const compareClaimCode = (request: EnrolmentRequest, given: Option.Option<string>) =>
  Effect.gen(function* () {
    const expected = yield* expectedClaimCode(request)
    const plain = (code: string): string => code.toUpperCase().replace(/[^A-Z2-7]/g, "")
    if (Option.isNone(given)) {
      yield* say(
        `${request.device} asks to be let in${request.name === null ? "" : ` as ${request.name}`}, without an invitation.`
      )
      yield* say("Its claim code stands in its log, on the device itself.")
    }
    const answer = Option.isSome(given)
      ? given.value
      : yield* askLine(
          "Type the claim code that the device shows: ",
          "There is no terminal to compare the claim code. Give the one the device shows with --claim-code CODE"
        )
    if (plain(answer) === plain(expected)) return
    return yield* failure(
      `The claim code ${visible(answer)} is not that of ${request.device}. Either it was mistyped, or this is not the device you think it is. Nothing was signed`
    )
  })

/**
 * The sequence of the newest decision about the device that any operator signed; ours must be above it. What nobody signed
 * counts for nothing: a number that is high enough would let the device be revoked never again.
 */
const newestSequence = (view: DeviceView, record: DeviceRecord | undefined) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const shown = verifyPastAdmission(engine, yield* requireRoot, view.admission)
    const isOfIt = Result.isSuccess(shown) && shown.success.document.device === view.device
    return Math.max(isOfIt ? shown.success.document.sequence : 0, record?.admission_sequence ?? 0)
  })

const statusOf = { accept: "accepted", reject: "rejected", revoke: "revoked" } as const

/** Whether the server holds the device's ledger for set back or copied: an acceptance then makes a new start. */
export const isObjectedTo = (view: DeviceView): boolean =>
  view.blocked === "ledger_rolled_back" || view.blocked === "cloned"

/** What the book knows of a device after a decision, of what it knew before. */
const recordAfter = (
  view: DeviceView,
  admission: Admission,
  known: DeviceRecord | undefined
): { readonly record: DeviceRecord; readonly isNewLedger: boolean } => {
  const { device, incarnation, issued_at_ms, name, recipient, sequence, server, signing_key } = admission
  const isSameLedger = known?.incarnation === incarnation
  const isAnew =
    known !== undefined && admission.decision === "accept" && (!isSameLedger || isObjectedTo(view))
  const { anew_at_ms, chain_open, claimed, invitation, key_version, last_word }: Partial<DeviceRecord> =
    known ?? {}
  const record: DeviceRecord = {
    type: "postern/device-record/v1",
    device,
    name,
    status: statusOf[admission.decision],
    signing_key,
    // A key that followed the first was signed by the device itself, and stays.
    recipient: key_version === undefined ? recipient : (known?.recipient ?? recipient),
    server,
    incarnation,
    admission_sequence: sequence,
    admitted_at_ms: issued_at_ms,
    last_order: known?.last_order ?? null,
    // Another ledger begins another chain of receipts, and so does one that was set back.
    last_receipt: known !== undefined && isSameLedger && !isAnew ? known.last_receipt : null,
    ...(key_version === undefined ? {} : { key_version }),
    ...(invitation === undefined ? {} : { invitation })
  }
  if (isAnew)
    return {
      record: { ...record, anew_at_ms: issued_at_ms, ...(isSameLedger ? { chain_open: true } : {}) },
      isNewLedger: !isSameLedger
    }
  return {
    record: {
      ...record,
      ...(anew_at_ms === undefined ? {} : { anew_at_ms }),
      ...(chain_open === undefined ? {} : { chain_open }),
      ...(claimed === undefined ? {} : { claimed }),
      ...(last_word === undefined ? {} : { last_word })
    },
    isNewLedger: false
  }
}

/** Signs a decision, gives it to the server, and writes it into the device book. */
const signDecision = (view: DeviceView, request: EnrolmentRequest, decision: Decision, name: Name) =>
  Effect.gen(function* () {
    const client = yield* ManagementClient
    const { root } = yield* requireRoot
    const keys = yield* unlocked
    const known = yield* deviceRecord(request.device)
    const { incarnation, recipient, server, signing_key } = request
    const admission: Admission = {
      type: "postern/admission/v1",
      decision,
      device: request.device,
      name,
      signing_key,
      recipient,
      server,
      incarnation,
      root_version: root.version,
      sequence: (yield* newestSequence(view, known)) + 1,
      issued_at_ms: yield* Clock.currentTimeMillis
    }
    const { envelope } = keys.sign("admission", admission)
    yield* client.call(`${decision} ${name}`, ({ devices }) =>
      devices.admit({ params: { device: request.device }, payload: envelope })
    )
    const after = recordAfter(view, admission, known)
    yield* writeDeviceRecord(after.record)
    return after
  })

/** Accepts a device: by proof of invitation where there is one, else by claim code. */
export const acceptDevice = (
  view: DeviceView,
  options: {
    readonly name: Option.Option<Name>
    readonly claimCode: Option.Option<string>
    /** An operator who was revoked since is believed. */
    readonly formerOperator: boolean
    readonly yes: boolean
  }
) =>
  Effect.gen(function* () {
    const home = yield* OperatorHome
    const nowMs = yield* Clock.currentTimeMillis
    const request = yield* provedRequest(view)
    const known = yield* deviceRecord(request.device)
    const invitation = yield* ownInvitation(request, nowMs)
    const formerName = options.formerOperator ? yield* acceptedByFormer(view, request) : undefined
    // A device of the book proves itself by its key; a new one by the invitation or the code.
    if (invitation === undefined && known?.status !== "accepted" && formerName === undefined) {
      if (request.invitation !== null)
        yield* say("Its invitation is not among the open ones of this home; the claim code decides.")
      yield* compareClaimCode(request, options.claimCode)
    }
    if (known !== undefined && known.incarnation !== request.incarnation && !options.yes) {
      yield* say(
        `${known.name} comes with another ledger than the accepted one: it was set up anew, restored from a backup, or cloned.`
      )
      const isSure = yield* confirm(
        "Accept the new ledger?",
        "There is no terminal to ask about the new ledger. Say --yes"
      )
      if (!isSure) return yield* failure("Nothing was signed")
    }
    const name =
      Option.getOrNull(options.name) ?? invitation?.name ?? known?.name ?? formerName ?? request.name
    if (name === null) return yield* failure(`${request.device} asks for no name. Give it one: --name NAME`)
    const decided = yield* home.alone(signDecision(view, request, "accept", Name.make(name)))
    if (invitation !== undefined) yield* home.remove(invitationFile(invitation.id))
    const by =
      invitation !== undefined
        ? "invitation"
        : known?.status === "accepted"
          ? "device book"
          : formerName !== undefined
            ? "former operator"
            : "claim code"
    return { ...decided, by }
  })

/** Gives an accepted device another name. */
export const renameDevice = (view: DeviceView, name: Name) =>
  Effect.gen(function* () {
    const home = yield* OperatorHome
    const request = yield* provedRequest(view)
    const known = yield* deviceRecord(request.device)
    if (known?.status !== "accepted" || view.status !== "accepted")
      return yield* failure(`${request.device} is not accepted, so it has no name to change`)
    if (isObjectedTo(view) || known.incarnation !== request.incarnation)
      return yield* failure(
        `Something is held against ${known.name}, which a new name would wipe away. First: postern devices re-enrol ${known.name}`
      )
    return (yield* home.alone(signDecision(view, request, "accept", name))).record
  })

/** Rejects a device that asks, or revokes one that was let in. */
export const turnAway = (view: DeviceView, decision: "reject" | "revoke") =>
  Effect.gen(function* () {
    const home = yield* OperatorHome
    const request = yield* provedRequest(view)
    const known = yield* deviceRecord(request.device)
    const name = known?.name ?? request.name ?? Name.make(`device-${request.device.slice(4, 12)}`)
    return yield* home.alone(signDecision(view, request, decision, name))
  })

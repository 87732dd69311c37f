/**
 * Why a device refuses an order, a cancel or an admission, and why it takes no orders at the moment: one code for each
 * reason, so that an operator, a test and a machine mean the same. The texts say what happened and what to do.
 */
import { Schema } from "effect"

/** Reasons to refuse one order, in the order of the checks. */
export const refusalTexts = {
  too_large: "The order is larger than allowed. Sign a smaller one.",
  malformed:
    "The order is not strict RFC 8785 JSON of the expected shape. It was altered or made by another version.",
  unknown_key:
    "No signature is by a key of the operators role in the device's trust root. Update the root, or sign with the right key.",
  bad_signature: "A signature does not fit the order. It was altered on the way.",
  threshold_not_met: "Fewer operators signed than the trust root asks for. Add signatures.",
  not_accepted: "The device has not been accepted by an operator. Accept it with `postern devices accept`.",
  wrong_device: "The order is for another device.",
  wrong_root:
    "The order names a trust root newer than the device could get. Publish that root on the server.",
  out_of_order:
    "The order's place in the sequence is not above the last one accepted. It was replayed, or signed twice.",
  replayed: "An order with this id was accepted before.",
  ledger_doubtful:
    "The device's ledger was set back or lives twice, so the order may have begun elsewhere. Accept the device again, then submit it again.",
  expired: "The order's time is over. Submit it again.",
  not_yet_valid: "The order was issued in the device's future. Check the operator's clock.",
  clock_unproven:
    "The device has not yet been told the time in this boot. It will take orders once the server answered.",
  canceled: "A cancel for this order was there before it began.",
  no_jail: "The device has no safe jail. Run `postern doctor` there.",
  disk_low: "The device has too little free disk. Free some.",
  outbox_full: "Too many results wait to be sent. They go out when the server is reached.",
  lane_unknown: "The device does not know the order's lane.",
  payload_missing: "The server does not have the payload. Submit it again.",
  payload_too_slow:
    "The payload came too slowly to be finished in time. It is tried again later, until the order expires.",
  payload_size: "The payload is not as long as the order says. It was altered on the way.",
  payload_digest: "The payload's digest is not the one the operator signed. It was altered on the way.",
  payload_not_for_us:
    "The payload is not encrypted to this device's key. Build it with the key from the device book.",
  payload_decrypt: "The payload does not decrypt. It was damaged before it was signed.",
  payload_decompress: "The payload is not zstd data, or it is cut short.",
  payload_unpacked_size: "The payload unpacks to more than the order says.",
  payload_entries: "The payload holds more entries than the order says.",
  entry_forbidden: "The payload holds something other than plain files and folders, or an unsafe path.",
  manifest_missing: "The payload does not begin with manifest.json.",
  manifest_malformed: "The manifest is not strict JSON of the expected shape.",
  file_unlisted: "The payload holds a file that the manifest does not list, or lists twice.",
  file_missing: "A file that the manifest lists is not in the payload.",
  file_digest: "A file's digest or size is not the one in the manifest.",
  grant_refused: "The package asks for something that the device's own allow-list does not name.",
  limit_refused: "The package asks for more than the device's own limits allow."
} as const
export type RefusalCode = keyof typeof refusalTexts
export const RefusalCode = Schema.Literals(Object.keys(refusalTexts) as [RefusalCode, ...Array<RefusalCode>])

/** Reasons why an accepted order did not succeed. */
export const failureTexts = {
  exit_code: "The command ended with an exit code other than 0.",
  signal: "The command was ended by a signal.",
  timed_out: "The command ran longer than its limit and was killed.",
  canceled_by_operator: "An operator canceled it.",
  stopped_by_server: "The server stopped it.",
  device_stopped: "The device's program was stopped while it ran.",
  crashed_in_run:
    "The device or its program went down while it ran. It is not run again, since it is not idempotent.",
  attempts_used: "It was interrupted on every attempt it is allowed.",
  artifact_missing: "The command ended well, but a file it promised is not in /work/out.",
  artifact_refused: "What stands in /work/out is too large, too many, or not plain files.",
  output_not_stored: "The device could not keep the output: its disk or outbox is full.",
  command_not_started: "The device has no such program, or it may not be run.",
  jail_failed: "The jail itself failed; the command may not have begun."
} as const
export type FailureCode = keyof typeof failureTexts
export const FailureCode = Schema.Literals(Object.keys(failureTexts) as [FailureCode, ...Array<FailureCode>])

/** What stands in a receipt: a refusal or a failure. */
export const OutcomeReason = Schema.Union([RefusalCode, FailureCode])
export type OutcomeReason = typeof OutcomeReason.Type

/** Why a device takes no orders at the moment; reported with every poll. */
export const blockedTexts = {
  not_enrolled: "The device is waiting to be accepted.",
  rejected: "An operator rejected this device.",
  revoked: "An operator revoked this device.",
  root_expired: "The trust root has expired and no newer one is on the server.",
  clock_unproven: "The device has not yet been told the time in this boot.",
  agent_only: "It runs as an agent alone: it sends and receives messages, and takes no work.",
  no_jail: "There is no safe jail on the device.",
  disk_low: "The device has too little free disk.",
  outbox_full: "Too many results wait to be sent.",
  ledger_rolled_back:
    "The server knows of later orders than the device's ledger: it was restored from a backup. An operator must accept the device again.",
  cloned: "Two devices use this identity. An operator must accept one of them again.",
  stopping: "The device's program is stopping."
} as const
export type BlockedCode = keyof typeof blockedTexts
export const BlockedCode = Schema.Literals(Object.keys(blockedTexts) as [BlockedCode, ...Array<BlockedCode>])

/** The text for an outcome's reason. */
export const reasonText = (reason: OutcomeReason): string =>
  reason in refusalTexts ? refusalTexts[reason as RefusalCode] : failureTexts[reason as FailureCode]

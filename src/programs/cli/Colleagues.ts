/**
 * What other operators of the root decided about devices, taken into this operator's device book. It is their signature
 * that counts, under the newest root, never the server's word: what somebody signed who is no operator any more is not
 * taken.
 *
 * @module
 */
import { Effect, Result } from "effect"
import {
  acceptedDevice,
  chooseDevice,
  deviceRecord,
  writeDeviceRecord
} from "../../adapters/operator/DeviceBook.ts"
import { ManagementClient } from "../../adapters/operator/ManagementClient.ts"
import { OperatorHome } from "../../adapters/operator/OperatorHome.ts"
import type { DeviceRecord } from "../../adapters/operator/Records.ts"
import { trustedRoot } from "../../adapters/operator/TrustStore.ts"
import { verifyAdmission } from "../../crypto/Trust.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import type { Admission } from "../../schemas/Enrolment.ts"
import type { DeviceView } from "../../schemas/ManagementApi.ts"
import type { TrustRoot } from "../../schemas/TrustRoot.ts"
import { say } from "./Screen.ts"
import { visible } from "./Text.ts"

const statusOf = { accept: "accepted", reject: "rejected", revoke: "revoked" } as const

const recordOf = (decision: Admission, known: DeviceRecord | undefined): DeviceRecord => ({
  type: "postern/device-record/v1",
  device: decision.device,
  name: decision.name,
  status: statusOf[decision.decision],
  signing_key: decision.signing_key,
  recipient: decision.recipient,
  server: decision.server,
  incarnation: decision.incarnation,
  admission_sequence: decision.sequence,
  admitted_at_ms: decision.issued_at_ms,
  last_order: known?.last_order ?? null,
  // Another ledger begins another chain of receipts.
  last_receipt: known?.incarnation === decision.incarnation ? known.last_receipt : null
})

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

/** Takes in what other operators decided about these devices. Not to be run inside the home's lock. */
export const takeDecisions = (views: ReadonlyArray<DeviceView>) =>
  Effect.gen(function* () {
    const home = yield* OperatorHome
    const trusted = yield* trustedRoot
    if (trusted === undefined || views.length === 0) return
    yield* home.alone(Effect.forEach(views, (view) => takeDecision(trusted.root, view), { discard: true }))
  })

/** The accepted device that a text means; one that is not in the book is looked for among the decisions of others. */
export const deviceToWork = (text: string) =>
  Effect.gen(function* () {
    const here = yield* Effect.result(acceptedDevice(text))
    if (Result.isSuccess(here)) return here.success
    const client = yield* ManagementClient
    const { devices } = yield* client.call("list the devices", (api) => api.devices.list({ query: {} }))
    const meant = yield* Effect.result(chooseDevice(text, devices))
    if (Result.isSuccess(meant)) yield* takeDecisions([meant.success])
    return yield* acceptedDevice(text)
  })

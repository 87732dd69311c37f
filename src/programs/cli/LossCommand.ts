/**
 * `postern devices accept-loss`: an operator's word that receipts which a server lost (it was restored from a backup) will
 * not come any more. Until then their absence is an alarm.
 *
 * @module
 */
import { Effect, Result } from "effect"
import { Argument, Command } from "effect/cli"
import { changeDeviceRecord, chooseDevice, deviceRecords } from "../../adapters/operator/DeviceBook.ts"
import { ManagementClient } from "../../adapters/operator/ManagementClient.ts"
import { OperatorHome } from "../../adapters/operator/OperatorHome.ts"
import type { VerifiedReceipt } from "../../adapters/operator/ReceiptChain.ts"
import type { DeviceRecord } from "../../adapters/operator/Records.ts"
import { verifyReceipt } from "../../crypto/Trust.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { confirm } from "./Ask.ts"
import { failure } from "./Failure.ts"
import { yesFlag } from "./Flags.ts"
import { out, outJson } from "./Screen.ts"
import { Json, withServer } from "./Settings.ts"
import { syncReceipts } from "./Verification.ts"

/** The first receipt of the device's present ledger behind the chain that is known here, signed by the device. */
const firstBehind = (record: DeviceRecord) =>
  Effect.gen(function* () {
    const client = yield* ManagementClient
    const engine = yield* CryptoEngine
    const from = (record.last_receipt?.number ?? 0) + 1
    const page = yield* client.call("get the device's receipts", (api) =>
      api.devices.receipts({ params: { device: record.device }, query: { from } })
    )
    for (const { envelope } of page.receipts) {
      const verified = verifyReceipt(engine, record.device, record.signing_key, envelope)
      if (Result.isFailure(verified))
        return yield* failure(
          `The server shows a receipt that ${record.name} did not sign (${verified.failure.message})`
        )
      const receipt: VerifiedReceipt = verified.success
      if (receipt.document.incarnation === record.incarnation) return { receipt, page }
    }
    return yield* failure(
      `The server shows no receipt of ${record.name} behind number ${from - 1}. Give the device some work first, and see what comes`
    )
  })

export const acceptLoss = Command.make(
  "accept-loss",
  {
    device: Argument.String("device").pipe(Argument.withDescription("Name, id, or the beginning of an id")),
    yes: yesFlag
  },
  Effect.fnUntraced(function* ({ device, yes }) {
    const known = yield* chooseDevice(device, yield* deviceRecords)
    // What can be followed is followed first; what is wrong beyond that is the question here.
    yield* syncReceipts(known.device)
    const record = yield* chooseDevice(known.device, yield* deviceRecords)
    const home = yield* OperatorHome
    const { page, receipt } = yield* firstBehind(record)
    const expected = (record.last_receipt?.number ?? 0) + 1
    const { number } = receipt.document
    if (number === expected) return yield* failure(`No receipt of ${record.name} is missing`)
    const why =
      page.restored_at_ms === null
        ? "The server was never restored from a backup, so that it has no excuse for this."
        : "The server was restored from a backup."
    const question = `${why} Take the receipts ${expected} to ${number - 1} of ${record.name} as lost for good?`
    const isSure = yes || (yield* confirm(question, "There is no terminal to ask. Say --yes"))
    if (!isSure) return yield* failure("Nothing was changed")
    yield* home.alone(
      changeDeviceRecord(record.device, (current) => ({
        ...current,
        last_receipt: { number, digest: receipt.digest }
      }))
    )
    if (yield* Json)
      return yield* outJson({ device: record.device, lost_from: expected, lost_to: number - 1 })
    yield* out(`The chain of ${record.name} goes on from receipt ${number}.\n`)
  }, withServer)
).pipe(
  Command.withDescription(
    "Take receipts that a restored server lost as lost for good, so that the chain goes on"
  ),
  Command.withExamples([{ command: "postern devices accept-loss pi-cellar", description: "Asks first" }])
)

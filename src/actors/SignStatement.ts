/** What the device says of itself with every poll, signed for its operators: the server only carries it. */
import { Effect } from "effect"
import { DeviceClock } from "../ports/DeviceClock.ts"
import { Identity } from "../ports/Identity.ts"
import { Ledger } from "../ports/Ledger.ts"
import type { HighWater } from "../schemas/DeviceApi.ts"
import type { DeviceStatement } from "../schemas/DeviceStatement.ts"
import type { DeviceId } from "../schemas/Ids.ts"

/** Signs where the device stands, and the key to encrypt to. */
export const signStatement = Effect.fnUntraced(function* (standing: {
  readonly highWater: HighWater | null
  readonly lastReceipt: number
}) {
  const identity = yield* Identity
  const { incarnation } = yield* Ledger
  const clock = yield* DeviceClock
  const { recipient, version } = yield* identity.encryption
  const statement: DeviceStatement = {
    type: "postern/device-statement/v1",
    device: identity.id as DeviceId,
    incarnation,
    high_water: standing.highWater,
    last_receipt: standing.lastReceipt,
    key_version: version,
    recipient,
    at_ms: yield* clock.nowMs
  }
  const { envelope } = yield* identity.sign("device_statement", statement)
  return envelope
})

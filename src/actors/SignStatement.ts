/** What the device says of itself with every poll, signed for its operators: the server only carries it. */
import { Effect } from "effect"
import { DeviceClock } from "../ports/DeviceClock.ts"
import { Identity } from "../ports/Identity.ts"
import { Ledger } from "../ports/Ledger.ts"
import { Tunnel } from "../ports/Tunnel.ts"
import type { HighWater } from "../schemas/DeviceApi.ts"
import type { DeviceStatement } from "../schemas/DeviceStatement.ts"
import type { DeviceId } from "../schemas/Ids.ts"

/** This device's key to onion services, as its documents name it; none where it goes without Tor, or has trouble with it. */
export const onionKeyMember = Effect.gen(function* () {
  const tunnel = yield* Tunnel
  const key = yield* Effect.catch(tunnel.clientKey, (error) =>
    Effect.as(Effect.logWarning(`no key to onion services: ${error.message}`), null)
  )
  return key === null ? {} : { onion_key: key }
})

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
    at_ms: yield* clock.nowMs,
    ...(yield* onionKeyMember)
  }
  const { envelope } = yield* identity.sign("device_statement", statement)
  return envelope
})

/** What a device says of itself for its operators, signed by its own key: the server carries it and cannot change it. */
import { Schema } from "effect"
import { HighWater } from "./DeviceApi.ts"
import { Count, DeviceId, Incarnation, intBetween, Recipient, TimestampMs } from "./Ids.ts"
import { OnionClientKey } from "./Onion.ts"

/** How many encryption keys a device may have had; the first, which its id names, is version 1. */
const highestKeyVersion = 1_000_000

/**
 * Made anew for every poll. By where the device stood, an operator tells a device that is away from a server that
 * withholds; the key is the one to encrypt to from now on, and its version only rises.
 */
export const DeviceStatement = Schema.Struct({
  type: Schema.Literal("postern/device-statement/v1"),
  device: DeviceId,
  incarnation: Incarnation,
  /** The last order the device took. */
  high_water: Schema.NullOr(HighWater),
  /** Number of the last receipt it wrote. */
  last_receipt: Count,
  key_version: intBetween(1, highestKeyVersion),
  recipient: Recipient,
  at_ms: TimestampMs,
  /** Its key to the server's onion service; absent where it goes without Tor. */
  onion_key: Schema.optionalKey(OnionClientKey)
})
export type DeviceStatement = typeof DeviceStatement.Type

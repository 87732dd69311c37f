/** What a device says of itself for its operators, signed by its own key: the server carries it and cannot change it. */
import { Schema } from "effect"
import { HighWater } from "./DeviceApi.ts"
import { Count, DeviceId, Incarnation, intBetween, Recipient, TimestampMs } from "./Ids.ts"

/** How many encryption keys a device may have had; the first is version 1. */
const highestKeyVersion = 1_000_000

/**
 * A new encryption key. A higher version replaces a lower one; the first key, which the device's id names, is version 1
 * and needs no statement.
 */
export const DeviceKeyStatement = Schema.Struct({
  type: Schema.Literal("postern/device-key/v1"),
  device: DeviceId,
  version: intBetween(2, highestKeyVersion),
  recipient: Recipient,
  issued_at_ms: TimestampMs
})
export type DeviceKeyStatement = typeof DeviceKeyStatement.Type

/**
 * Where the device stood when it polled: the last order it took and the last receipt it wrote. By this an operator tells a
 * device that is away from a server that withholds.
 */
export const DeviceMark = Schema.Struct({
  type: Schema.Literal("postern/mark/v1"),
  device: DeviceId,
  incarnation: Incarnation,
  high_water: Schema.NullOr(HighWater),
  last_receipt: Count,
  at_ms: TimestampMs
})
export type DeviceMark = typeof DeviceMark.Type

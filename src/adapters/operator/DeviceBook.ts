/**
 * The device book: every device this operator decided about, with the keys it proved at enrolment. Keys to encrypt to and
 * keys to check receipts with come from here, never from a server.
 *
 * @module
 */
import { Effect, Schema } from "effect"
import type { DeviceId } from "../../schemas/Ids.ts"
import { type HomeError, OperatorHome, readJson, writeJson } from "./OperatorHome.ts"
import { DeviceRecord, deviceFile } from "./Records.ts"

/** No device of the book, or more than one, is meant by a name. */
export class UnknownDevice extends Schema.TaggedError<UnknownDevice>()("UnknownDevice", {
  message: Schema.String
}) {}

/** A device's record, or undefined where the operator never decided about it. */
export const deviceRecord = (
  device: DeviceId
): Effect.Effect<DeviceRecord | undefined, HomeError, OperatorHome> =>
  readJson(deviceFile(device), DeviceRecord)

/** Every record, by name. */
export const deviceRecords: Effect.Effect<ReadonlyArray<DeviceRecord>, HomeError, OperatorHome> = Effect.gen(
  function* () {
    const home = yield* OperatorHome
    const files = (yield* home.list("devices")).filter((name) => name.endsWith(".json"))
    const records = yield* Effect.forEach(files, (name) => readJson(`devices/${name}`, DeviceRecord))
    return records
      .filter((record) => record !== undefined)
      .sort((left, right) => (left.name < right.name ? -1 : left.name > right.name ? 1 : 0))
  }
)

export const writeDeviceRecord = (record: DeviceRecord): Effect.Effect<void, HomeError, OperatorHome> =>
  writeJson(deviceFile(record.device), DeviceRecord, record)

/** Whether a person may mean this device: by its id, the beginning of it (at least 8 characters), or its name. */
export const isMeant = (
  text: string,
  device: { readonly device: string; readonly name: string | null }
): boolean =>
  device.name === text ||
  device.device === text ||
  (/^dev_[a-z2-7]{4,}$/.test(text) && device.device.startsWith(text))

/** The one device of a list that a text means. A full id or a name goes before the beginning of an id. */
export const chooseDevice = <A extends { readonly device: string; readonly name: string | null }>(
  text: string,
  devices: ReadonlyArray<A>
): Effect.Effect<A, UnknownDevice> => {
  const meant = devices.filter((device) => isMeant(text, device))
  const exact = meant.filter((device) => device.device === text || device.name === text)
  const chosen = exact.length > 0 ? exact : meant
  if (chosen.length === 1) return Effect.succeed(chosen[0] as A)
  return Effect.fail(
    new UnknownDevice({
      message:
        chosen.length === 0
          ? `There is no device ${text} in the device book. See \`postern devices list\`; accept it with \`postern devices accept\``
          : `${text} may be any of ${chosen.length} devices. Name one by more of its id`
    })
  )
}

/** The accepted device of the book that a text means. */
export const acceptedDevice = (
  text: string
): Effect.Effect<DeviceRecord, HomeError | UnknownDevice, OperatorHome> =>
  Effect.gen(function* () {
    const records = yield* deviceRecords
    // A name that a device lost belongs to the one that has it now.
    const accepted = records.filter((record) => record.status === "accepted")
    const named = accepted.filter((record) => record.name === text)
    const record = yield* chooseDevice(text, named.length > 0 ? named : records)
    if (record.status === "accepted") return record
    return yield* new UnknownDevice({
      message: `The device ${record.name} was ${record.status}. Accept it again to give it work: postern devices accept ${record.name}`
    })
  })

/** Changes a record as it stands now; meant to run inside `OperatorHome.alone`. */
export const changeDeviceRecord = (
  device: DeviceId,
  change: (record: DeviceRecord) => DeviceRecord
): Effect.Effect<void, HomeError, OperatorHome> =>
  Effect.gen(function* () {
    const record = yield* deviceRecord(device)
    if (record !== undefined) yield* writeDeviceRecord(change(record))
  })

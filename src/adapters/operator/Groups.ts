/**
 * Groups of devices, a part of the device book: names an operator gives to sets of its devices. They stand in this home
 * alone; who gets a package is what the operator signs, never what a server says.
 *
 * @module
 */
import { Effect, Schema } from "effect"
import { DeviceId, Name } from "../../schemas/Ids.ts"
import { Limits } from "../../schemas/Limits.ts"
import { deviceRecords, UnknownDevice } from "./DeviceBook.ts"
import { type HomeError, OperatorHome, readJson, writeJson } from "./OperatorHome.ts"
import type { DeviceRecord } from "./Records.ts"

const groupsFile = "groups.json"

/** `groups.json`. */
const GroupsFile = Schema.Struct({
  type: Schema.Literal("postern/groups/v1"),
  groups: Schema.Array(
    Schema.Struct({
      name: Name,
      devices: Schema.Array(DeviceId).check(Schema.isMaxLength(Limits.rolloutDevices), Schema.isUnique())
    })
  ).check(Schema.isMaxLength(Limits.groups))
})

/** A group by name; devices in the order they were added. */
export interface Group {
  readonly name: Name
  readonly devices: ReadonlyArray<DeviceId>
}

/** Every group, by name. */
export const groups: Effect.Effect<ReadonlyArray<Group>, HomeError, OperatorHome> = Effect.map(
  readJson(groupsFile, GroupsFile),
  (file) => [...(file?.groups ?? [])].sort((left, right) => (left.name < right.name ? -1 : 1))
)

/** The names of the groups a device is in. */
export const groupsOf = (all: ReadonlyArray<Group>, device: DeviceId | undefined): ReadonlyArray<Name> =>
  all.flatMap(({ devices, name }) => (device !== undefined && devices.includes(device) ? [name] : []))

const unknown = (message: string) => new UnknownDevice({ message })

/** The accepted devices of a group, by name. Those that were turned away since are left out. */
export const groupRecords = (
  name: string
): Effect.Effect<ReadonlyArray<DeviceRecord>, HomeError | UnknownDevice, OperatorHome> =>
  Effect.gen(function* () {
    const group = (yield* groups).find((candidate) => candidate.name === name)
    if (group === undefined) {
      return yield* unknown(
        `There is no group ${name} in the device book. Make it: postern devices group add ${name} DEVICE…`
      )
    }
    const records = (yield* deviceRecords).filter(
      (record) => record.status === "accepted" && group.devices.includes(record.device)
    )
    return records.length > 0 ? records : yield* unknown(`The group ${name} has no accepted device`)
  })

const write = (all: ReadonlyArray<Group>) =>
  writeJson(groupsFile, GroupsFile, {
    type: "postern/groups/v1",
    groups: all.filter(({ devices }) => devices.length > 0)
  })

/** Puts devices into a group, which begins with its first device. Gives the group. */
export const addToGroup = (
  name: Name,
  devices: ReadonlyArray<DeviceId>
): Effect.Effect<Group, HomeError | UnknownDevice, OperatorHome> =>
  Effect.flatMap(OperatorHome, (home) =>
    home.alone(
      Effect.gen(function* () {
        const all = yield* groups
        const before = all.find((group) => group.name === name)
        const group = { name, devices: [...new Set([...(before?.devices ?? []), ...devices])] }
        if (group.devices.length > Limits.rolloutDevices)
          return yield* unknown(`A group has at most ${Limits.rolloutDevices} devices`)
        if (before === undefined && all.length >= Limits.groups)
          return yield* unknown(`There are at most ${Limits.groups} groups`)
        yield* write([...all.filter((other) => other !== before), group])
        return group
      })
    )
  )

/** Takes devices out of a group, which ends with its last device. Gives what is left. */
export const removeFromGroup = (
  name: Name,
  devices: ReadonlyArray<DeviceId>
): Effect.Effect<Group, HomeError | UnknownDevice, OperatorHome> =>
  Effect.flatMap(OperatorHome, (home) =>
    home.alone(
      Effect.gen(function* () {
        const all = yield* groups
        const before = all.find((group) => group.name === name)
        if (before === undefined) return yield* unknown(`There is no group ${name} in the device book`)
        const group = { name, devices: before.devices.filter((device) => !devices.includes(device)) }
        yield* write([...all.filter((other) => other !== before), group])
        return group
      })
    )
  )

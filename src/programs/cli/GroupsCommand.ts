/**
 * `postern devices group`: names for sets of devices, for packages that go to many.
 *
 * @module
 */
import { Effect } from "effect"
import { Argument, Command } from "effect/cli"
import { acceptedDevice, chooseDevice, deviceRecords } from "../../adapters/operator/DeviceBook.ts"
import { addToGroup, type Group, groups, removeFromGroup } from "../../adapters/operator/Groups.ts"
import type { DeviceRecord } from "../../adapters/operator/Records.ts"
import { Name } from "../../schemas/Ids.ts"
import { out, outJson } from "./Screen.ts"
import { Json, withHome } from "./Settings.ts"
import { counted, shortId, table } from "./Text.ts"

const groupArgument = Argument.String("group").pipe(
  Argument.withDescription("The group's name"),
  Argument.withSchema(Name)
)

const devicesArgument = Argument.String("device").pipe(
  Argument.withDescription("Names, ids, or beginnings of ids"),
  Argument.variadic({ min: 1 })
)

const nameIn = (records: ReadonlyArray<DeviceRecord>, device: string): string =>
  records.find((record) => record.device === device)?.name ?? shortId(device)

const groupJson = (group: Group, records: ReadonlyArray<DeviceRecord>) => ({
  group: group.name,
  devices: group.devices.map((device) => {
    const record = records.find((candidate) => candidate.device === device)
    return { device, name: record?.name ?? null, status: record?.status ?? "missing" }
  })
})

/** Says what a group holds after a change. */
const show = (group: Group) =>
  Effect.gen(function* () {
    const records = yield* deviceRecords
    if (yield* Json) return yield* outJson(groupJson(group, records))
    yield* out(`${group.name} has ${counted(group.devices.length, "device", "devices")}.\n`)
  })

const add = Command.make(
  "add",
  { group: groupArgument, device: devicesArgument },
  Effect.fnUntraced(function* ({ device, group }) {
    const records = yield* Effect.forEach(device, acceptedDevice)
    yield* show(
      yield* addToGroup(
        group,
        records.map((record) => record.device)
      )
    )
  }, withHome)
).pipe(
  Command.withDescription("Put devices into a group; a new name makes a new group"),
  Command.withExamples([
    { command: "postern devices group add cellars pi-cellar pi-attic", description: "Two at once" }
  ])
)

const remove = Command.make(
  "remove",
  { group: groupArgument, device: devicesArgument },
  Effect.fnUntraced(function* ({ device, group }) {
    const records = yield* deviceRecords
    const chosen = yield* Effect.forEach(device, (text) => chooseDevice(text, records))
    yield* show(
      yield* removeFromGroup(
        group,
        chosen.map((record) => record.device)
      )
    )
  }, withHome)
).pipe(
  Command.withDescription("Take devices out of a group; a rollout that was submitted goes on with them"),
  Command.withExamples([{ command: "postern devices group remove cellars pi-attic", description: "By name" }])
)

const list = Command.make(
  "list",
  {},
  Effect.fnUntraced(function* () {
    const all = yield* groups
    const records = yield* deviceRecords
    if (yield* Json) return yield* outJson({ groups: all.map((group) => groupJson(group, records)) })
    if (all.length === 0)
      return yield* out("No groups yet. Make one: postern devices group add GROUP DEVICE…\n")
    yield* out(
      table(
        ["GROUP", "DEVICES"],
        all.map(({ devices, name }) => [name, devices.map((device) => nameIn(records, device)).join(", ")])
      )
    )
  }, withHome)
).pipe(
  Command.withDescription("List the groups of the device book"),
  Command.withExamples([{ command: "postern devices group list", description: "Who is in which" }])
)

export const groupCommand = Command.make("group").pipe(
  Command.withDescription("Groups of devices: your own names for many, kept in the device book"),
  Command.withSubcommands([list, add, remove])
)

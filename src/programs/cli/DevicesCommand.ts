/**
 * `postern devices`: who asks to be let in, who is, and how they are.
 *
 * @module
 */
import { Clock, Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { chooseDevice, deviceRecord, deviceRecords } from "../../adapters/operator/DeviceBook.ts"
import { addToGroup, groups, groupsOf } from "../../adapters/operator/Groups.ts"
import { ManagementClient } from "../../adapters/operator/ManagementClient.ts"
import { OperatorHome } from "../../adapters/operator/OperatorHome.ts"
import type { DeviceRecord } from "../../adapters/operator/Records.ts"
import { conditionLine } from "../../schemas/Conditions.ts"
import { Name } from "../../schemas/Ids.ts"
import type { DeviceView } from "../../schemas/ManagementApi.ts"
import { acceptDevice, expectedClaimCode, provedRequest, renameDevice, turnAway } from "./Admission.ts"
import { raise } from "./Alarms.ts"
import { confirm } from "./Ask.ts"
import { takeDecisions } from "./Colleagues.ts"
import { failure, usage } from "./Failure.ts"
import { yesFlag } from "./Flags.ts"
import { formerOperatorFlag } from "./FormerOperators.ts"
import { groupCommand } from "./GroupsCommand.ts"
import { healthLines, seriesLines } from "./HealthViews.ts"
import { allDevices } from "./Lists.ts"
import { acceptLoss } from "./LossCommand.ts"
import { preauthorise } from "./PreauthoriseCommand.ts"
import { out, outJson } from "./Screen.ts"
import { Json, withServer } from "./Settings.ts"
import { properties, showAge, table, visible } from "./Text.ts"
import { syncReceipts } from "./Verification.ts"
import {
  blockedText,
  deviceJson,
  deviceName,
  deviceRow,
  deviceTableHeader,
  type KnownDevice,
  takesWork
} from "./Views.ts"

export const deviceArgument = Argument.String("device").pipe(
  Argument.withDescription("Name, id, or the beginning of an id (dev_abcd…)")
)

type Words = ReadonlyMap<string, ReadonlyArray<string>>

/** Server and device book side by side, as both are now. `words` is what is wrong with the devices' own words. */
const sideBySide = (devices: ReadonlyArray<DeviceView>, words: Words) =>
  Effect.gen(function* () {
    const records = yield* deviceRecords
    const missing = records.filter((record) => !devices.some((view) => view.device === record.device))
    return [
      ...devices.map((view) =>
        join(
          view,
          records.find((record) => record.device === view.device),
          words.get(view.device)
        )
      ),
      ...missing.map((record): KnownDevice => ({ view: undefined, record, alarms: [] }))
    ]
  })

/** What the server says of a device that the book says otherwise. */
const difference = ({ record, view }: KnownDevice): string | undefined => {
  if (record === undefined || view?.status === record.status) return undefined
  if (view !== undefined) return `the server calls ${record.name} ${view.status}, you ${record.status} it`
  return record.status === "accepted"
    ? `the server does not know ${record.name}, which was accepted`
    : undefined
}

const judged = (known: KnownDevice): KnownDevice => {
  const differs = difference(known)
  return differs === undefined ? known : { ...known, alarms: [differs, ...known.alarms] }
}

/**
 * Every device that server or device book know. Where the two differ, both are read once more while no other command of this
 * home decides anything: a decision taken between the two readings is no alarm.
 */
export const knownDevices = Effect.gen(function* () {
  const home = yield* OperatorHome
  const devices = yield* allDevices()
  const words = yield* takeDecisions(devices)
  const known = yield* sideBySide(devices, words)
  if (known.every((device) => difference(device) === undefined)) return known
  const settled = yield* home.alone(Effect.flatMap(allDevices(), (devices) => sideBySide(devices, words)))
  return settled.map(judged)
})

/** Holds the server's view against the book. `words` is what is wrong with the device's own word. */
const join = (
  view: DeviceView,
  record: DeviceRecord | undefined,
  words: ReadonlyArray<string> = []
): KnownDevice => {
  const isForeign = record === undefined && view.status === "accepted" && words.length === 0
  const foreign = `${view.name ?? view.device} was accepted, but neither from this home nor by an operator of your root. If you know it, accept it again: postern devices accept ${view.device}`
  return { view, record, alarms: isForeign ? [foreign] : words }
}

/** The device that a text means, among those the server knows. */
export const shownDevice = (text: string) =>
  Effect.gen(function* () {
    const devices = yield* allDevices()
    yield* takeDecisions(devices)
    const records = yield* deviceRecords
    const named = devices.map((view) => ({
      device: view.device,
      name: records.find((record) => record.device === view.device)?.name ?? view.name,
      view
    }))
    return (yield* chooseDevice(text, named)).view
  })

const list = Command.make(
  "list",
  {},
  Effect.fnUntraced(function* () {
    const nowMs = yield* Clock.currentTimeMillis
    const devices = yield* knownDevices
    const all = yield* groups
    const groupNames = ({ record, view }: KnownDevice) => groupsOf(all, record?.device ?? view?.device)
    if (yield* Json)
      yield* outJson({
        devices: devices.map((device) => ({ ...deviceJson(device), groups: groupNames(device) }))
      })
    else if (devices.length === 0) yield* out("No devices yet. Invite one: postern invite --name NAME\n")
    else
      yield* out(
        table(
          [...deviceTableHeader, "GROUPS"],
          devices.map((device) => [...deviceRow(device, nowMs), groupNames(device).join(", ")])
        )
      )
    yield* raise(devices.flatMap((device) => device.alarms))
  }, withServer)
).pipe(
  Command.withDescription("List devices: the server's word beside the device book"),
  Command.withExamples([
    { command: "postern devices list", description: "RECEIPTS are verified here / known to the server" }
  ])
)

/** One device beside its record; as in `knownDevices`, both are read again where they differ. */
const shownBeside = (shown: DeviceView) =>
  Effect.gen(function* () {
    const client = yield* ManagementClient
    const home = yield* OperatorHome
    const words = (yield* takeDecisions([shown])).get(shown.device)
    const beside = (view: DeviceView) =>
      Effect.map(deviceRecord(view.device), (record) => ({ ...join(view, record, words), view }))
    const known = yield* beside(shown)
    if (difference(known) === undefined) return known
    const again = client.call("ask for the device again", (api) =>
      api.devices.show({ params: { device: shown.device } })
    )
    const settled = yield* home.alone(Effect.flatMap(again, beside))
    return { ...judged(settled), view: settled.view }
  })

/** What `show` tells of the past. */
const seriesMs = 24 * 3_600_000
const seriesPoints = 24

const show = Command.make(
  "show",
  { device: deviceArgument },
  Effect.fnUntraced(function* ({ device }) {
    const client = yield* ManagementClient
    const nowMs = yield* Clock.currentTimeMillis
    const known = yield* shownBeside(yield* shownDevice(device))
    const { view } = known
    const { reports } = yield* client.call("ask for the device's health", (api) =>
      api.devices.health({ params: { device: view.device }, query: { limit: 1 } })
    )
    const health = reports[0]
    const { samples } = yield* client.call("ask for the device's figures", (api) =>
      api.devices.series({
        params: { device: view.device },
        query: { from_ms: Math.max(0, nowMs - seriesMs), points: seriesPoints }
      })
    )
    const code = view.status === "pending" ? yield* expectedClaimCode(yield* provedRequest(view)) : null
    if (yield* Json)
      yield* outJson({ ...deviceJson(known), claim_code: code, health: health ?? null, series: samples })
    else {
      yield* out(
        properties([
          ["name", visible(deviceName(known))],
          ["id", view.device],
          ["status", view.status],
          ...(code === null ? [] : [["claim code", `${code}, if it is the device you think it is`] as const]),
          ["device book", known.record?.status ?? "not in it"],
          ["groups", groupsOf(yield* groups, view.device).join(", ") || "none"],
          ["online", view.online ? "yes" : "no"],
          ["seen", view.last_seen_at_ms === null ? "never" : showAge(view.last_seen_at_ms, nowMs)],
          ["takes work", view.blocked === null ? takesWork(view) : blockedText(view.blocked)],
          [
            "last order",
            known.record?.last_order === null || known.record === undefined
              ? "none"
              : `${known.record.last_order.counter}`
          ],
          ...(known.record?.key_version === undefined
            ? []
            : [["encryption key", `version ${known.record.key_version}, signed by the device`] as const]),
          [
            "receipts",
            `${known.record?.last_receipt?.number ?? 0} verified here, ${view.last_receipt} on the server`
          ],
          ...(health === undefined
            ? view.degraded.map((code) => ["degraded", visible(conditionLine({ code, detail: "" }))] as const)
            : healthLines(health, nowMs)),
          ...(samples.length === 0 ? [] : [["last 24 hours", ""] as const, ...seriesLines(samples)])
        ])
      )
    }
    const chain = known.record?.status === "accepted" ? yield* syncReceipts(view.device) : []
    yield* raise([...known.alarms, ...chain])
  }, withServer)
).pipe(
  Command.withDescription("Show one device, its last health report, and its figures of the last day"),
  Command.withExamples([{ command: "postern devices show pi-cellar", description: "By name" }])
)

/** The one device that waits, where no name was given. */
const waitingDevice = Effect.gen(function* () {
  const client = yield* ManagementClient
  const { devices } = yield* client.call("list the waiting devices", (api) =>
    api.devices.list({ query: { status: "pending" } })
  )
  if (devices.length === 1) return devices[0] as DeviceView
  return yield* failure(
    devices.length === 0
      ? "No device is waiting. Start one with the command that postern invite prints"
      : `${devices.length} devices are waiting. Name the one to accept; see postern devices list`
  )
})

const accept = Command.make(
  "accept",
  {
    device: deviceArgument.pipe(Argument.optional),
    waiting: Flag.Boolean("waiting").pipe(
      Flag.withDescription("The one device that waits, instead of naming it"),
      Flag.withDefault(false),
      Flag.withoutNegation
    ),
    name: Flag.String("name").pipe(
      Flag.withMetavar("NAME"),
      Flag.withDescription("The device's name; default the invitation's, else the one it asks for"),
      Flag.withSchema(Name),
      Flag.optional
    ),
    claimCode: Flag.String("claim-code").pipe(
      Flag.withMetavar("CODE"),
      Flag.withDescription("The code that the device shows, instead of being asked for it"),
      Flag.optional
    ),
    group: Flag.String("group").pipe(
      Flag.withMetavar("GROUP"),
      Flag.withDescription("Put it into this group; may be given again"),
      Flag.withSchema(Name),
      Flag.atMost(16)
    ),
    formerOperator: formerOperatorFlag,
    yes: yesFlag
  },
  Effect.fnUntraced(function* ({ device, group, waiting, ...options }) {
    if (Option.isSome(device) === waiting) return yield* usage("Name the device to accept, or say --waiting")
    const view = Option.isSome(device) ? yield* shownDevice(device.value) : yield* waitingDevice
    const { by, isNewLedger, record } = yield* acceptDevice(view, options)
    for (const name of group) yield* addToGroup(name, [record.device])
    if (yield* Json)
      return yield* outJson({
        device: record.device,
        name: record.name,
        status: "accepted",
        by,
        new_ledger: isNewLedger
      })
    yield* out(`Accepted ${record.name} (${record.device}), proved by ${by}.\n`)
    if (isNewLedger) yield* out("It has a new ledger: its chain of receipts begins again.\n")
    yield* out(`Try: postern run ${record.name} -- uname -a\n`)
  }, withServer)
).pipe(
  Command.withDescription(
    "Let a device in: checks its enrolment and its invitation or claim code, and signs"
  ),
  Command.withExamples([
    { command: "postern devices accept --waiting", description: "The device that was just invited" },
    {
      command: "postern devices accept dev_abcd --name pi-attic --claim-code ABCD-EFGH-IJKL-MNOP",
      description: "Without an invitation"
    }
  ])
)

const decisionCommand = (decision: "reject" | "revoke", description: string, question: string) =>
  Command.make(
    decision,
    { device: deviceArgument, yes: yesFlag },
    Effect.fnUntraced(function* ({ device, yes }) {
      const view = yield* shownDevice(device)
      const label = view.name ?? view.device
      const isSure =
        yes || (yield* confirm(`${question} ${visible(label)}?`, "There is no terminal to ask. Say --yes"))
      if (!isSure) return yield* failure("Nothing was signed")
      const { record } = yield* turnAway(view, decision)
      if (yield* Json)
        return yield* outJson({ device: record.device, name: record.name, status: record.status })
      yield* out(`${record.name} (${record.device}) is ${record.status}.\n`)
    }, withServer)
  ).pipe(
    Command.withDescription(description),
    Command.withExamples([{ command: `postern devices ${decision} dev_abcd`, description: "Asks first" }])
  )

const reEnrol = Command.make(
  "re-enrol",
  { device: deviceArgument, yes: yesFlag },
  Effect.fnUntraced(function* ({ device, yes }) {
    const view = yield* shownDevice(device)
    const known = yield* deviceRecord(view.device)
    if (known?.status !== "accepted")
      return yield* failure(
        `${view.name ?? view.device} is not an accepted device of your book: postern devices accept ${view.device}`
      )
    const question = `${known.name} makes a new start: ${view.blocked === null ? "nothing is held against it now" : blockedText(view.blocked)} Work it has not begun is dropped. If a copy of it runs somewhere, stop that first. Accept it again?`
    const isSure = yes || (yield* confirm(question, "There is no terminal to ask. Say --yes"))
    if (!isSure) return yield* failure("Nothing was signed")
    const options = { name: Option.some(known.name), claimCode: Option.none<string>(), yes: true }
    const { isNewLedger, record } = yield* acceptDevice(view, { ...options, formerOperator: false })
    if (yield* Json)
      return yield* outJson({ device: record.device, name: record.name, new_ledger: isNewLedger })
    yield* out(`${record.name} (${record.device}) is accepted again.\n`)
  }, withServer)
).pipe(
  Command.withDescription(
    "Accept a device again whose ledger was restored, lost or copied: it takes work again from now on"
  ),
  Command.withExamples([{ command: "postern devices re-enrol pi-cellar", description: "Asks first" }])
)

const rename = Command.make(
  "rename",
  {
    device: deviceArgument,
    name: Argument.String("name").pipe(Argument.withDescription("The new name"), Argument.withSchema(Name))
  },
  Effect.fnUntraced(function* ({ device, name }) {
    const record = yield* renameDevice(yield* shownDevice(device), name)
    if (yield* Json) return yield* outJson({ device: record.device, name: record.name })
    yield* out(`${record.device} is called ${record.name} now.\n`)
  }, withServer)
).pipe(
  Command.withDescription("Give an accepted device another name"),
  Command.withExamples([
    { command: "postern devices rename pi-cellar pi-attic", description: "Signs a new acceptance" }
  ])
)

const reject = decisionCommand("reject", "Turn away a device that asks to be let in", "Reject")
const revoke = decisionCommand("revoke", "Take back an acceptance: the device gets no more work", "Revoke")

export const devicesCommand = Command.make("devices").pipe(
  Command.withDescription("Devices that ask to be let in, and those that are"),
  Command.withSubcommands([
    list,
    show,
    accept,
    preauthorise,
    reject,
    revoke,
    reEnrol,
    rename,
    acceptLoss,
    groupCommand
  ])
)

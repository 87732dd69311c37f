/**
 * `postern package`: building, looking into, signing and checking work packages.
 *
 * @module
 */
import { readFileSync, writeFileSync } from "node:fs"
import { resolve } from "node:path"
import { Effect, Option, Result, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { errorText } from "../../adapters/files/AtomicFile.ts"
import { acceptedDevice, deviceRecord } from "../../adapters/operator/DeviceBook.ts"
import { groupRecords } from "../../adapters/operator/Groups.ts"
import { OperatorHome } from "../../adapters/operator/OperatorHome.ts"
import { operatorProfile } from "../../adapters/operator/OperatorKeys.ts"
import type { DeviceRecord } from "../../adapters/operator/Records.ts"
import { buildPackage } from "../../adapters/packages/BuildPackage.ts"
import { readSource } from "../../adapters/packages/SourceFiles.ts"
import { verifyOrder } from "../../crypto/Trust.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { DsseEnvelope } from "../../schemas/Dsse.ts"
import { Limits } from "../../schemas/Limits.ts"
import { confirm } from "./Ask.ts"
import { deviceToWork } from "./Colleagues.ts"
import { failure, usage } from "./Failure.ts"
import { yesFlag } from "./Flags.ts"
import { nextPlace, type OrderPlan, orderFlags, placeBehindPending, planOrder, signOrder } from "./Orders.ts"
import {
  descriptionName,
  fileRows,
  folderName,
  type ProvedPackage,
  packageLines,
  planFlags,
  planPackage,
  provePackage,
  readDescription
} from "./PackagePlan.ts"
import { out, outJson, Screen, say } from "./Screen.ts"
import { Json, requireRoot, withHome, withServer } from "./Settings.ts"
import { properties, showDuration, showTime, table } from "./Text.ts"
import { unlocked } from "./Unlock.ts"

const fileArgument = Argument.String("file").pipe(
  Argument.withDescription("A package file, as postern package build makes it")
)

export const deviceFlag = Flag.String("device").pipe(
  Flag.withMetavar("DEVICE"),
  Flag.withDescription("Name, id, or the beginning of an id")
)

/** A package as JSON. */
export const packageJson = ({ manifest, path, payload }: ProvedPackage) => ({ file: path, payload, manifest })

const build = Command.make(
  "build",
  {
    folder: Argument.String("folder").pipe(
      Argument.withDescription(`The folder to pack; its ${descriptionName} says what to run`)
    ),
    command: Argument.String("command").pipe(
      Argument.withDescription("What to run, behind --; goes before what the description says"),
      Argument.variadic()
    ),
    device: deviceFlag.pipe(Flag.atMost(Limits.rolloutDevices)),
    group: Flag.String("group").pipe(
      Flag.withMetavar("GROUP"),
      Flag.withDescription("All accepted devices of a group"),
      Flag.atMost(Limits.groups)
    ),
    target: Flag.String("output").pipe(
      Flag.withAlias("o"),
      Flag.withMetavar("FILE"),
      Flag.withDescription("Where to write the package; default FOLDER.postern in this folder"),
      Flag.optional
    ),
    ...planFlags
  },
  Effect.fnUntraced(function* ({ command, device, folder, group, target: given, ...flags }) {
    const profile = yield* operatorProfile
    if (profile === undefined)
      return yield* failure("There are no operator keys yet. Make them first: postern keys init --server URL")
    const records = [
      ...(yield* Effect.forEach(device, acceptedDevice)),
      ...(yield* Effect.forEach(group, groupRecords)).flat()
    ]
    if (records.length === 0) return yield* usage("Say who is to open it: --device DEVICE, or --group GROUP")
    const root = resolve(folder)
    const draft = yield* planPackage(yield* readDescription(root), flags, command, folderName(root))
    const source = yield* readSource(root, { exclude: [descriptionName] })
    const target = resolve(Option.getOrElse(given, () => `${folderName(root)}.postern`))
    const recipients = [...new Set([...records.map((record) => record.recipient), profile.recipient])]
    const built = yield* buildPackage({ source, draft, recipients, target })
    if (yield* Json)
      return yield* outJson({
        ...packageJson(built),
        devices: [...new Set(records.map((record) => record.device))]
      })
    yield* out(
      properties([
        ...packageLines(built),
        ["for", [...new Set(records.map((record) => record.name))].join(", ")],
        ["file", target]
      ])
    )
    const whom = group[0] === undefined ? `--device ${records[0]?.name}` : `--group ${group[0]}`
    yield* say(`Next: postern jobs submit ${target} ${whom}`)
  }, withHome)
).pipe(
  Command.withDescription("Pack a folder, encrypted to devices of the device book and to you"),
  Command.withExamples([
    {
      command: "postern package build stats --device pi-cellar -o stats.postern",
      description: "With a postern.json in stats/"
    },
    {
      command: "postern package build stats --device pi-cellar --timeout 1m -- sh /package/run.sh",
      description: "Without one"
    }
  ])
)

const inspect = Command.make(
  "inspect",
  { file: fileArgument },
  Effect.fnUntraced(function* ({ file }) {
    const proved = yield* provePackage(resolve(file), yield* unlocked)
    if (yield* Json) return yield* outJson(packageJson(proved))
    yield* out(properties(packageLines(proved)))
    yield* out(`\n${table(["FILE", "SIZE", "EXECUTABLE", "DIGEST"], fileRows(proved.manifest))}`)
  }, withHome)
).pipe(
  Command.withDescription("Decrypt a package, check every byte of it, and show what it would do"),
  Command.withExamples([
    { command: "postern package inspect stats.postern", description: "Nothing is written" }
  ])
)

/** Shows what is about to be signed, and asks. */
export const confirmOrder = (
  proved: Pick<ProvedPackage, "manifest" | "payload">,
  plan: OrderPlan,
  record: DeviceRecord,
  yes: boolean
) =>
  Effect.gen(function* () {
    const screen = yield* Screen
    if (yes && !screen.errIsTerminal) return
    const readers = plan.sealed ? "you alone" : "you and the server"
    const terms = [
      ["device", `${record.name} (${record.device})`],
      ["lane", plan.lane],
      ["not begun after", showDuration(plan.lifetimeMs)],
      ["receipt within", showDuration(plan.deadlineMs)],
      ["results for", readers]
    ] as const
    yield* screen.write("err", properties([...packageLines(proved), ...terms]))
    if (yes) return
    const isSure = yield* confirm(
      "Sign this?",
      "There is no terminal to ask. Look at it with postern package inspect, then say --yes"
    )
    if (!isSure) return yield* failure("Nothing was signed")
  })

const sign = Command.make(
  "sign",
  {
    file: fileArgument,
    device: deviceFlag,
    output: Flag.String("output").pipe(
      Flag.withAlias("o"),
      Flag.withMetavar("FILE"),
      Flag.withDescription("Where to write the signed order; default FILE.order.json"),
      Flag.optional
    ),
    yes: yesFlag,
    ...orderFlags
  },
  Effect.fnUntraced(function* ({ device, file, output, yes, ...flags }) {
    const home = yield* OperatorHome
    const path = resolve(file)
    const keys = yield* unlocked
    const proved = yield* provePackage(path, keys)
    const record = yield* deviceToWork(device)
    const plan = yield* planOrder(record, proved, flags)
    yield* confirmOrder(proved, plan, record, yes)
    const signing = Effect.gen(function* () {
      const current = (yield* deviceRecord(record.device)) ?? record
      return yield* signOrder(keys, plan, yield* placeBehindPending(record.device, yield* nextPlace(current)))
    })
    const sent = yield* home.alone(signing)
    const target = resolve(Option.getOrElse(output, () => `${path}.order.json`))
    yield* Effect.try({
      try: () => writeFileSync(target, `${JSON.stringify(sent.envelope)}\n`, { mode: 0o600 }),
      catch: (error) => failure(`Could not write ${target}: ${errorText(error)}`)
    })
    if (yield* Json)
      return yield* outJson({ job: sent.order, order: target, counter: sent.counter, digest: sent.digest })
    yield* out(`Signed order ${sent.order}, number ${sent.counter} for ${record.name}: ${target}\n`)
    yield* say(`Next: postern jobs submit ${path} --order ${target}`)
  }, withServer)
).pipe(
  Command.withDescription(
    "Check a package, show what it would do, and sign an order for it without sending it"
  ),
  Command.withExamples([
    { command: "postern package sign stats.postern --device pi-cellar", description: "Asks before it signs" }
  ])
)

const decodeEnvelope = Schema.decodeUnknownResult(Schema.fromJsonString(DsseEnvelope))

/** A signed order from a file, verified against the operator's own root. */
export const readOrder = (path: string) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const { root } = yield* requireRoot
    const text = yield* Effect.try({
      try: () => readFileSync(path, "utf8"),
      catch: (error) => failure(`Could not read the order ${path}: ${errorText(error)}`)
    })
    const envelope = decodeEnvelope(text)
    if (Result.isFailure(envelope)) return yield* failure(`${path} is not a signed order`)
    const verified = verifyOrder(engine, root, envelope.success)
    if (Result.isFailure(verified))
      return yield* failure(`The order ${path} is not to be trusted: ${verified.failure.message}`)
    return { envelope: envelope.success, order: verified.success.document, digest: verified.success.digest }
  })

const isSamePayload = (left: OrderPlan["payload"], right: OrderPlan["payload"]): boolean =>
  left.digest === right.digest &&
  left.size_bytes === right.size_bytes &&
  left.unpacked_bytes === right.unpacked_bytes &&
  left.entries === right.entries

const verify = Command.make(
  "verify",
  {
    file: fileArgument,
    order: Flag.String("order").pipe(
      Flag.withMetavar("FILE"),
      Flag.withDescription("Also check this signed order, and that it is for this package"),
      Flag.optional
    )
  },
  Effect.fnUntraced(function* ({ file, order }) {
    const proved = yield* provePackage(resolve(file), yield* unlocked)
    const read = Option.isSome(order) ? yield* readOrder(resolve(order.value)) : undefined
    if (read !== undefined && !isSamePayload(read.order.payload, proved.payload)) {
      return yield* failure(
        `The order is for another package (${read.order.payload.digest}), not for this one (${proved.payload.digest})`
      )
    }
    if (yield* Json)
      return yield* outJson({ verified: true, ...packageJson(proved), order: read?.order ?? null })
    yield* out(`${proved.path}: verified, ${Object.keys(proved.manifest.files).length} files\n`)
    if (read !== undefined)
      yield* out(
        `order ${read.order.id}: verified, number ${read.order.counter}, until ${showTime(read.order.expires_at_ms)}\n`
      )
  }, withHome)
).pipe(
  Command.withDescription("Check a package to the last byte, and a signed order for it"),
  Command.withExamples([
    {
      command: "postern package verify stats.postern --order stats.postern.order.json",
      description: "Exit code 0: all is as it was signed"
    }
  ])
)

export const packageCommand = Command.make("package").pipe(
  Command.withDescription("Work packages: what is to run, with all files, encrypted"),
  Command.withSubcommands([build, inspect, sign, verify])
)

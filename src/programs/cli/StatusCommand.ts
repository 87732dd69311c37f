/**
 * `postern status` and `postern ps`: how the server and its parts are.
 *
 * @module
 */
import { resolve } from "node:path"
import { Clock, Effect, Option, Result, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import { askControl } from "../../adapters/ControlSocket.ts"
import { ManagementClient } from "../../adapters/operator/ManagementClient.ts"
import { OperatorHome } from "../../adapters/operator/OperatorHome.ts"
import { trustedRoot } from "../../adapters/operator/TrustStore.ts"
import { renderInspection, SystemInspection } from "../../kernel/index.ts"
import { conditionLine } from "../../schemas/Conditions.ts"
import type { ServerStatus } from "../../schemas/ManagementApi.ts"
import { MainLoopStatus } from "../../schemas/protocols/MainLoop.ts"
import { expiryWarning } from "../../schemas/RootExpiry.ts"
import { messagingLines, messagingNotes } from "./AgentViews.ts"
import { raise } from "./Alarms.ts"
import { knownDevices } from "./DevicesCommand.ts"
import { failure } from "./Failure.ts"
import { allJobs } from "./Lists.ts"
import { onionLines, onionNotes } from "./OnionViews.ts"
import { laggards, laggardText } from "./RootViews.ts"
import { out, outJson, say } from "./Screen.ts"
import { chosenServer, Json, keepAbreast, withClientOf, withHome } from "./Settings.ts"
import { properties, showAge, showDuration, showSize, showTime, visible } from "./Text.ts"
import { judgeJob, syncReceipts } from "./Verification.ts"
import { blockedText, degradedCodes, deviceName, type KnownDevice } from "./Views.ts"
import { forgottenOrders, unseenOrders } from "./Withheld.ts"

const counts = (record: Readonly<Record<string, number>>): string =>
  Object.entries(record)
    .filter(([, count]) => count > 0)
    .map(([name, count]) => `${count} ${visible(name)}`)
    .join(", ") || "none"

/** What the server keeps, as of its last look. */
const storageLines = (storage: ServerStatus["storage"]): ReadonlyArray<readonly [string, string]> => {
  if (storage === null) return []
  const { artifact_bytes, database_bytes, free_bytes, output_bytes, payload_bytes } = storage
  const free = free_bytes === null ? "" : `, ${showSize(free_bytes)} free`
  const kinds = [
    `payloads ${showSize(payload_bytes)}`,
    `artifacts ${showSize(artifact_bytes)}`,
    `output ${showSize(output_bytes)}`,
    `databases ${showSize(database_bytes)}`
  ]
  return [["storage", `${kinds.join(", ")}${free}`]]
}

const statusLines = (
  status: ServerStatus,
  address: string,
  nowMs: number
): ReadonlyArray<readonly [string, string]> => [
  ["server", `${status.server} at ${address}`],
  ["software", visible(status.software)],
  ["up", showDuration(Math.max(0, status.time_ms - status.started_at_ms))],
  [
    "clock",
    Math.abs(status.time_ms - nowMs) < 10_000
      ? "agrees with yours"
      : `${showAge(status.time_ms, nowMs)} by yours`
  ],
  [
    "root",
    status.root_version === null ? "none: run postern keys publish" : `version ${status.root_version}`
  ],
  ["devices", counts(status.devices)],
  ["jobs", counts(status.jobs)],
  ...storageLines(status.storage),
  ...onionLines(status),
  ...messagingLines(status),
  ...(status.restored === null
    ? []
    : [
        [
          "restored",
          `${showTime(status.restored.at_ms)}, from a backup of ${showTime(status.restored.backup_at_ms)}: what came between is missing`
        ] as const
      ])
]

/** What the server says of itself against what the operator knows. */
const rootAlarms = (status: ServerStatus) =>
  Effect.gen(function* () {
    const trusted = yield* trustedRoot
    if (trusted === undefined) return []
    const { root } = trusted
    if (!root.servers.some((server) => server.id === status.server))
      return [`the server ${status.server} is not in your trust root`]
    const version = status.root_version ?? 0
    if (version < root.version)
      return [
        `the server holds version ${version} of the trust root, you version ${root.version}: run postern keys publish`
      ]
    return version > root.version
      ? [`the server holds version ${version} of the trust root, newer than yours (${root.version})`]
      : []
  })

/** Takes in newer roots; a foreign one is an alarm among the others. */
const foreignRoot = keepAbreast.pipe(
  Effect.as<ReadonlyArray<string>>([]),
  Effect.catchTag("ForeignRoot", (error) => Effect.succeed([error.message.replace(/^ALARM: /, "")]))
)

/** Why a device takes no work, and what else is weaker on it than it should be. */
const weakness = (device: KnownDevice): ReadonlyArray<string> => {
  const blocked = device.view?.blocked ?? null
  const said = [
    // An agent alone is as it should be.
    ...(blocked === null || blocked === "agent_only"
      ? []
      : [`takes no work: ${blocked}: ${blockedText(blocked)}`]),
    ...degradedCodes(device).map((code) => `degraded: ${conditionLine({ code, detail: "" })}`)
  ]
  return said.map((text) => `${visible(deviceName(device))} ${visible(text)}`)
}

export const statusCommand = Command.make(
  "status",
  {},
  Effect.fnUntraced(function* () {
    const entry = yield* chosenServer
    const nowMs = yield* Clock.currentTimeMillis
    const found = yield* withClientOf(entry)(
      Effect.gen(function* () {
        const client = yield* ManagementClient
        const foreign = yield* foreignRoot
        const trusted = yield* trustedRoot
        const status = yield* client.call("ask for the server's status", (api) => api.server.status())
        const devices = trusted === undefined ? [] : yield* knownDevices
        const jobs = yield* allJobs({ open: "true" })
        const judged = trusted === undefined ? [] : yield* Effect.forEach(jobs, judgeJob)
        const accepted = devices.flatMap(({ record, view }) =>
          record?.status === "accepted" && view !== undefined ? [record.device] : []
        )
        const chains = yield* Effect.forEach(accepted, syncReceipts)
        const forgotten = yield* Effect.forEach(accepted, forgottenOrders)
        const unseen = trusted === undefined ? [] : yield* unseenOrders(new Set(jobs.map(({ id }) => id)))
        const found = [
          ...[...devices, ...judged].flatMap(({ alarms }) => alarms),
          ...forgotten.flat(),
          ...unseen
        ]
        const behind = yield* laggards(yield* Json)
        const weak = devices.filter(({ view }) => view?.status === "accepted").flatMap(weakness)
        return { status, behind, trusted, weak, alarms: [...foreign, ...found, ...chains.flat()] }
      })
    )
    const alarms = [...(yield* rootAlarms(found.status)), ...found.alarms]
    const { behind, trusted } = found
    const lagging = laggardText(behind, nowMs)
    const warning = trusted === undefined ? undefined : expiryWarning(trusted.root, nowMs)?.text
    const hasRecovery = (yield* (yield* OperatorHome).readBytes("recovery.key")) !== undefined
    const notes = [
      ...(warning === undefined ? [] : [warning]),
      ...(lagging === undefined ? [] : [`${lagging}.`]),
      ...found.weak,
      ...onionNotes(found.status, trusted?.root),
      ...messagingNotes(found.status),
      ...(hasRecovery
        ? ["The recovery key still lies in the operator's home: move it to a safe place off this machine."]
        : [])
    ]
    if (yield* Json) {
      yield* outJson({
        address: entry.address,
        ...found.status,
        trusted_root_version: trusted?.root.version ?? null,
        trusted_root_expires_at_ms: trusted?.root.expires_at_ms ?? null,
        laggards: behind,
        warnings: notes,
        alarms
      })
    } else {
      yield* out(properties(statusLines(found.status, entry.address, nowMs)))
      for (const note of notes) yield* say(note)
    }
    yield* raise(alarms)
  }, withHome)
).pipe(
  Command.withDescription(
    "How the server is, whether it remembers what you signed, and what needs your attention"
  ),
  Command.withExamples([{ command: "postern status", description: "Exit code 1 when there is an alarm" }])
)

const decodeInspection = Schema.decodeUnknownResult(SystemInspection)

/** The tree of a program on this machine, by the control socket in its state folder. */
const localTree = (folder: string) =>
  askControl({ stateFolder: resolve(folder), request: "inspect" }).pipe(
    Effect.mapError((error) =>
      failure(`${error.message}. Is the program running, and is this its state folder?`)
    )
  )

/** What a client on this machine says of itself; a server says nothing of the kind. */
const localStatus = (folder: string) =>
  Effect.flatMap(askControl({ stateFolder: resolve(folder), request: "status" }), (answer) =>
    Schema.decodeUnknownEffect(MainLoopStatus)(answer)
  )

const localConditions = (status: Option.Option<MainLoopStatus>): string => {
  if (Option.isNone(status)) return ""
  const { blocked, degraded } = status.value
  const lines = [
    ...(blocked === null ? [] : [`takes no work: ${blocked}: ${blockedText(blocked)}`]),
    ...degraded.map((condition) => `degraded: ${conditionLine(condition)}`)
  ]
  return lines.map((line) => `${visible(line)}\n`).join("")
}

const serverTree = Effect.gen(function* () {
  const entry = yield* chosenServer
  return yield* withClientOf(entry)(
    Effect.flatMap(ManagementClient, (client) =>
      client.call("ask for the actors", (api) => api.server.actors())
    )
  )
})

export const psCommand = Command.make(
  "ps",
  {
    state: Flag.String("state").pipe(
      Flag.withMetavar("DIR"),
      Flag.withDescription("A program on this machine instead of the server: its state folder"),
      Flag.optional
    )
  },
  Effect.fnUntraced(function* ({ state }) {
    const answer = Option.isSome(state) ? yield* localTree(state.value) : yield* serverTree
    const decoded = decodeInspection(answer)
    if (Result.isFailure(decoded))
      return yield* failure("The answer is not a tree of actors. Is it a Postern program of this version?")
    if (yield* Json) return yield* outJson(answer)
    yield* out(`${renderInspection(decoded.success)}\n`)
    if (Option.isSome(state)) yield* out(localConditions(yield* Effect.option(localStatus(state.value))))
  }, withHome)
).pipe(
  Command.withDescription(
    "The actors of the server, or of a program on this machine: mailboxes, restarts, last failures"
  ),
  Command.withExamples([
    { command: "postern ps", description: "The server's" },
    { command: "postern ps --state /var/lib/postern", description: "The device's, on the device itself" }
  ])
)

/**
 * `postern doctor`, `client.js doctor`, `server.js doctor`: every requirement and defence of a program on this machine,
 * with its state, the reason, and what mends it. It reads; it changes nothing and disturbs nobody.
 */
import { Effect, Option, Result } from "effect"
import { Command, Flag } from "effect/cli"
import { requirement } from "../../adapters/doctor/Findings.ts"
import { machineChecks } from "../../adapters/doctor/MachineChecks.ts"
import { kindOfState, type Patient, type PatientKind, patientAt } from "../../adapters/doctor/Patient.ts"
import { NativeCryptoEngine } from "../../adapters/NativeCrypto.ts"
import { type ConfigError, type LoadedConfig, renderProblem } from "../../adapters/TomlConfig.ts"
import type { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { type Finding, gravest } from "../../schemas/Finding.ts"
import { failure, silentExit } from "../cli/Failure.ts"
import { bold, green, out, outJson, red } from "../cli/Screen.ts"
import { Json } from "../cli/Settings.ts"
import { visible } from "../cli/Text.ts"
import {
  defaultStateFolder as defaultClientState,
  loadClientConfig,
  noClientArguments
} from "../client/ClientSettings.ts"
import {
  defaultStateFolder as defaultServerState,
  loadServerConfig,
  noServerArguments
} from "../server/ServerSettings.ts"
import { deviceFindings } from "./DeviceDoctor.ts"
import { serverFindings } from "./ServerDoctor.ts"

/** What was found about one program. */
interface Examination {
  readonly kind: PatientKind
  /** Null where the configuration is too wrong to say it. */
  readonly stateFolder: string | null
  readonly findings: ReadonlyArray<Finding>
}

const configuration = requirement("configuration", "a configuration without mistakes")

/** With a wrong configuration nothing but that, and the machine, can be judged. */
const wronglyConfigured = ({ problems }: ConfigError) =>
  Effect.map(machineChecks, (found) => [
    ...problems.map((problem) =>
      configuration.failed(renderProblem(problem), "mend it there; docs/configuration.md has every key")
    ),
    ...found
  ])

const examine = <A extends { readonly state_folder: string }>(
  kind: PatientKind,
  load: Effect.Effect<LoadedConfig<A>, ConfigError>,
  look: (patient: Patient, config: A) => Effect.Effect<ReadonlyArray<Finding>, never, CryptoEngine>
): Effect.Effect<Examination> =>
  Effect.gen(function* () {
    const loaded = yield* Effect.result(load)
    if (Result.isFailure(loaded))
      return { kind, stateFolder: null, findings: yield* wronglyConfigured(loaded.failure) }
    const { config, file } = loaded.success
    const patient = yield* patientAt(kind, config.state_folder)
    const findings = yield* look(patient, config)
    const said = configuration.ok(file === null ? "no file: defaults, environment and flags" : file)
    return { kind, stateFolder: config.state_folder, findings: [said, ...findings] }
  }).pipe(Effect.provide(NativeCryptoEngine))

/** Looks at a device with the configuration that its client would run with. */
export const examineDevice = (load: ReturnType<typeof loadClientConfig>) =>
  examine("device", load, deviceFindings)

/** Looks at a server with the configuration that it would run with. */
export const examineServer = (load: ReturnType<typeof loadServerConfig>) =>
  examine("server", load, serverFindings)

const label = {
  ok: (text: string) => green(text),
  degraded: (text: string) => bold(text),
  failed: (text: string) => red(text)
}

const show = ({ findings, kind, stateFolder }: Examination) =>
  Effect.gen(function* () {
    yield* out(`${kind}${stateFolder === null ? "" : ` ${visible(stateFolder)}`}\n`)
    for (const { mend, reason, state, what } of findings) {
      const word = yield* label[state](state.padEnd(9))
      yield* out(`  ${word} ${visible(what)}: ${visible(reason)}\n`)
      if (mend !== "") yield* out(`            → ${visible(mend)}\n`)
    }
    const count = (state: Finding["state"]) => findings.filter((one) => one.state === state).length
    yield* out(`${count("ok")} ok, ${count("degraded")} degraded, ${count("failed")} failed\n`)
  })

const report = (examinations: ReadonlyArray<Examination>, json: boolean) =>
  Effect.gen(function* () {
    const state = gravest(examinations.flatMap(({ findings }) => findings))
    if (json) {
      const programs = examinations.map(({ findings, kind, stateFolder }) => ({
        program: kind,
        state_folder: stateFolder,
        state: gravest(findings),
        findings
      }))
      yield* outJson({ state, programs })
    } else yield* Effect.forEach(examinations, show, { discard: true })
    if (state === "failed") return yield* silentExit(1)
  })

const words = Command.withDescription(
  "Look at every requirement and defence of the program on this machine: its state, the reason, and what mends it. Exit code 1 when something failed"
)

/** `client.js doctor` and `server.js doctor`. */
export const ownDoctorCommand = <R>(examination: Effect.Effect<Examination, never, R>) =>
  Command.make(
    "doctor",
    {
      json: Flag.Boolean("json").pipe(
        Flag.withDescription("Print one JSON document"),
        Flag.withDefault(false),
        Flag.withoutNegation
      )
    },
    ({ json }) => Effect.flatMap(examination, (one) => report([one], json))
  ).pipe(words)

const examineFolder = (kind: PatientKind, stateFolder: string, config: Option.Option<string>) =>
  kind === "device"
    ? examineDevice(
        loadClientConfig({ ...noClientArguments, config, state: Option.some(stateFolder) }, process.env)
      )
    : examineServer(
        loadServerConfig(
          { ...noServerArguments, config: Option.getOrUndefined(config), state: stateFolder },
          process.env
        )
      )

/** The programs of this machine: the one of the folder named, else those in the usual folders. */
const patients = (state: Option.Option<string>): ReadonlyArray<readonly [PatientKind, string]> => {
  const folders = Option.isSome(state)
    ? [state.value]
    : [defaultClientState(process.env), defaultServerState(process.env)]
  return folders.flatMap((folder) => {
    const kind = kindOfState(folder)
    return kind === null ? [] : [[kind, folder] as const]
  })
}

/** `postern doctor`. */
export const doctorCommand = Command.make(
  "doctor",
  {
    state: Flag.Directory("state").pipe(
      Flag.withDescription("The program's state folder; default the usual ones of client and server"),
      Flag.optional
    ),
    config: Flag.File("config").pipe(
      Flag.withDescription("The program's configuration file, if it has one"),
      Flag.optional
    )
  },
  Effect.fnUntraced(function* ({ config, state }) {
    const found = patients(state)
    if (found.length === 0) {
      const where = Option.isSome(state) ? `in ${state.value}` : "in the usual folders"
      return yield* failure(
        `There is no state of a client or server ${where}, or you may not look at it. Name its folder with --state, and run this as its user or as root`
      )
    }
    const examinations = yield* Effect.forEach(found, ([kind, folder]) => examineFolder(kind, folder, config))
    yield* report(examinations, yield* Json)
  })
).pipe(
  words,
  Command.withExamples([
    { command: "postern doctor --state /var/lib/postern", description: "A device, on the device itself" },
    { command: "postern doctor --json", description: "For a script" }
  ])
)

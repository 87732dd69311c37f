/**
 * What `postern doctor`, `client.js doctor` and `server.js doctor` have in common: how a program is looked at and what is
 * said of it. It reads; it changes nothing and disturbs nobody.
 */
import { Effect, Result } from "effect"
import { Command, Flag } from "effect/cli"
import { ChosenEngine, engineFinding } from "../../adapters/ChosenEngine.ts"
import { requirement } from "../../adapters/doctor/Findings.ts"
import { machineChecks } from "../../adapters/doctor/MachineChecks.ts"
import { type Patient, type PatientKind, patientAt } from "../../adapters/doctor/Patient.ts"
import { type ConfigError, type LoadedConfig, renderProblem } from "../../adapters/TomlConfig.ts"
import type { CryptoEngine } from "../../ports/CryptoEngine.ts"
import type { EngineChoice } from "../../schemas/CryptoSettings.ts"
import { type Finding, gravest } from "../../schemas/Finding.ts"
import { silentExit } from "../cli/Failure.ts"
import { bold, green, out, outJson, red } from "../cli/Screen.ts"
import { visible } from "../cli/Text.ts"

/** What was found about one program. */
export interface Examination {
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

/** Loads a program's configuration and looks at the program with it. */
export const examine = <A extends { readonly state_folder: string; readonly crypto_engine: EngineChoice }>(
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
    return {
      kind,
      stateFolder: config.state_folder,
      findings: [said, engineFinding(config.crypto_engine), ...findings]
    }
  }).pipe(Effect.provide(ChosenEngine()))

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

/** Prints what was found; fails with exit code 1 where something failed. */
export const report = (examinations: ReadonlyArray<Examination>, json: boolean) =>
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

/** What the command says of itself. */
export const doctorDescription = Command.withDescription(
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
  ).pipe(doctorDescription)

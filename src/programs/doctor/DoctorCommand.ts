/** `postern doctor`: every requirement and defence of the programs on this machine; see Examination.ts. */
import { Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { kindOfState, type PatientKind } from "../../adapters/doctor/Patient.ts"
import { failure } from "../cli/Failure.ts"
import { Json } from "../cli/Settings.ts"
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
import { examineDevice } from "./DeviceDoctor.ts"
import { doctorDescription, report } from "./Examination.ts"
import { examineServer } from "./ServerDoctor.ts"

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
  doctorDescription,
  Command.withExamples([
    { command: "postern doctor --state /var/lib/postern", description: "A device, on the device itself" },
    { command: "postern doctor --json", description: "For a script" }
  ])
)

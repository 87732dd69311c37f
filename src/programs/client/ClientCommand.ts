/** The client's command line. */
import { Effect } from "effect"
import { Command } from "effect/cli"
import { ClientConfig } from "../../schemas/ClientConfig.ts"
import { configCommand } from "../ConfigCommand.ts"
import { examineDevice } from "../doctor/DeviceDoctor.ts"
import { ownDoctorCommand } from "../doctor/Examination.ts"
import { clientArguments, loadClientConfig, readSettings, runFlags, settingFlags } from "./ClientSettings.ts"
import { makeConfiguration } from "./ConfigurationFile.ts"
import { keysCommand } from "./KeysCommand.ts"
import { runClient } from "./RunClient.ts"

const config = configCommand({
  program: "client",
  schema: ClientConfig,
  load: Effect.flatMap(clientArguments(), (args) => loadClientConfig(args, process.env))
})

const doctor = ownDoctorCommand(
  Effect.flatMap(clientArguments(), (args) => examineDevice(loadClientConfig(args, process.env)))
)

const keys = keysCommand(
  Effect.flatMap(clientArguments(), (args) =>
    Effect.map(readSettings(args, process.env), (settings) => settings.config.state_folder)
  )
)

/** `client.js`. `entry` is the program's own file, from which the ledger's thread is started. */
export const clientCommand = (entry: URL) =>
  Command.make("client.js", runFlags, (given) =>
    Effect.gen(function* () {
      const args = yield* clientArguments(given)
      const made = yield* Effect.sync(() => makeConfiguration(args, process.env))
      const settings = yield* readSettings(args, process.env)
      yield* runClient(settings, entry, made)
    })
  ).pipe(
    Command.withDescription(
      "The Postern client: connects outward only, fetches work packages that your operators signed, proves them, runs them in a jail and returns signed receipts."
    ),
    Command.withSubcommands([config, doctor, keys]),
    Command.withGlobalFlags(settingFlags),
    Command.withExamples([
      {
        command: "POSTERN_INVITATION=postern-invite-v1.… client.js",
        description: "Enrol with an invitation, then run"
      },
      {
        command: "client.js --server https://postern.example",
        description: "Enrol by claim code, shown in the log"
      }
    ])
  )

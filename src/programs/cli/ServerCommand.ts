/**
 * `postern server`: what is done to a server's state on its own machine. The same commands as those of `server.js`.
 *
 * @module
 */
import { Command } from "effect/cli"
import { settingFlags } from "../server/ServerSettings.ts"
import { stateCommands } from "../server/StateCommands.ts"

export const serverStateCommand = Command.make("server").pipe(
  Command.withDescription("Backup and restore of a server on this machine, and its housekeeping"),
  Command.withSubcommands([...stateCommands]),
  Command.withGlobalFlags(settingFlags)
)

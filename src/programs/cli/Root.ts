/**
 * The tree of commands.
 *
 * @module
 */
import { Command } from "effect/cli"
import { devicesCommand } from "./DevicesCommand.ts"
import { inviteCommand } from "./InviteCommand.ts"
import { keysCommand } from "./KeysCommand.ts"
import { loginCommand } from "./LoginCommand.ts"
import { globalFlags } from "./Settings.ts"

/** `postern` and everything below it. */
export const posternCommand = Command.make("postern").pipe(
  Command.withDescription(
    "Gives signed, encrypted work to devices behind firewalls, and checks what they return. Keys and the device book stay with the operator; a server only carries."
  ),
  Command.withSubcommands([keysCommand, loginCommand, inviteCommand, devicesCommand]),
  Command.withGlobalFlags(globalFlags),
  Command.withExamples([
    {
      command: "postern keys init --server http://127.0.0.1:8470",
      description: "Make the operator's keys and the trust root"
    },
    { command: "postern invite --name pi-cellar", description: "Print the command that lets a device in" },
    {
      command: "postern run pi-cellar -- uname -a",
      description: "Run a command on a device and see its output"
    }
  ])
)

/**
 * The tree of commands.
 *
 * @module
 */
import { Command } from "effect/cli"
import { doctorCommand } from "../doctor/DoctorCommand.ts"
import { agentCommand } from "./AgentCommand.ts"
import { agentsCommand } from "./AgentsCommand.ts"
import { auditCommand } from "./AuditCommand.ts"
import { brokerCommand } from "./BrokerCommand.ts"
import { completionsCommand } from "./CompletionsCommand.ts"
import { devicesCommand } from "./DevicesCommand.ts"
import { historyCommand } from "./HistoryCommand.ts"
import { inviteCommand } from "./InviteCommand.ts"
import { jobsCommand } from "./JobsCommand.ts"
import { keysCommand } from "./KeysCommand.ts"
import { loginCommand } from "./LoginCommand.ts"
import { packageCommand } from "./PackageCommand.ts"
import { rolloutsCommand } from "./RolloutsCommand.ts"
import { runCommand } from "./RunCommand.ts"
import { serverStateCommand } from "./ServerCommand.ts"
import { globalFlags } from "./Settings.ts"
import { psCommand, statusCommand } from "./StatusCommand.ts"
import { tokensCommand } from "./TokensCommand.ts"

const commands = [
  keysCommand,
  loginCommand,
  inviteCommand,
  devicesCommand,
  agentsCommand,
  agentCommand,
  runCommand,
  packageCommand,
  jobsCommand,
  rolloutsCommand,
  tokensCommand,
  auditCommand,
  serverStateCommand,
  brokerCommand,
  statusCommand,
  psCommand,
  historyCommand,
  doctorCommand
] as const

const tree = Command.make("postern").pipe(
  Command.withSubcommands(commands),
  Command.withGlobalFlags(globalFlags)
)

/** `postern` and everything below it. */
export const posternCommand = Command.make("postern").pipe(
  Command.withDescription(
    "Gives signed, encrypted work to devices behind firewalls, and checks what they return. Keys and the device book stay with the operator; a server only carries."
  ),
  Command.withSubcommands([...commands, completionsCommand(tree)]),
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

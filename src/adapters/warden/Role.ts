/** Which part a process of the client's program plays, from how it was started. No Effect; see Warden.ts. */
import { isMainThread } from "node:worker_threads"
import { wardenVariable } from "./Messages.ts"

/**
 * What Node is told for the client: to collect young garbage at two MiB, and to prefer a small heap to speed. Memory is what
 * small devices have least of; by default Node lets tens of MiB gather while a package is unpacked, and an idle client
 * holds some ten MiB more.
 */
export const clientFlags = ["--max-semi-space-size=2", "--optimize-for-size"]

/** Flags that are answered at once, by a process that starts nothing. */
const answered = ["--help", "-h", "--version", "-v", "--completions"]
/** Flags whose value is the next argument, which is then no subcommand. */
const valued = ["--config", "--state", "--server", "--invitation", "--name"]

/** Whether the version is all that is asked for. With other arguments beside, the whole command line has its say. */
export const asksVersion = (args: ReadonlyArray<string>): boolean =>
  args.length === 1 && (args[0] === "--version" || args[0] === "-v")

/** Whether these arguments ask for the client itself, and not for help or one of its subcommands. */
export const runsClient = (args: ReadonlyArray<string>): boolean => {
  for (let index = 0; index < args.length; index++) {
    const argument = args[index] as string
    if (argument === "--") return true
    if (answered.some((flag) => argument === flag || argument.startsWith(`${flag}=`))) return false
    if (!argument.startsWith("-")) return false
    if (valued.includes(argument)) index++
  }
  return true
}

/** Whether this process is to be the warden: the first of a client, in its main thread. */
export const isWarden = (args: ReadonlyArray<string>, environment: NodeJS.ProcessEnv): boolean =>
  isMainThread && environment[wardenVariable] === undefined && runsClient(args)

/** The client's command line. */
import { Effect } from "effect"
import { Command } from "effect/cli"
import { type ClientArguments, clientFlags, readSettings } from "./ClientSettings.ts"
import { runClient } from "./RunClient.ts"

/** `client.js`. `entry` is the program's own file, from which the ledger's thread is started. */
export const clientCommand = (entry: URL) =>
  Command.make("client.js", clientFlags, (args: ClientArguments) =>
    Effect.flatMap(readSettings(args, process.env), (settings) => runClient(settings, entry))
  ).pipe(
    Command.withDescription(
      "The Postern client: connects outward only, fetches work packages that your operators signed, proves them, runs them in a jail and returns signed receipts."
    ),
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

/**
 * `client.js`, the Postern client of a device.
 *
 * @module
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Cause, Effect, Exit, Layer } from "effect"
import { clientDatabases } from "../adapters/SqliteLedger.ts"
import { isDatabaseWorker, serveDatabase } from "../adapters/sqlite/DatabaseWorker.ts"
import { version } from "../schemas/Version.ts"
import { runProgram } from "./cli/Program.ts"
import { ProcessScreen } from "./cli/Screen.ts"
import { clientCommand } from "./client/ClientCommand.ts"

const main = () =>
  runProgram(clientCommand(new URL(import.meta.url)), version, process.argv.slice(2)).pipe(
    Effect.provide(Layer.mergeAll(ProcessScreen, NodeServices.layer)),
    NodeRuntime.runMain({
      disableErrorReporting: true,
      // A signal ends the client in order: that is no failure.
      teardown: (exit) =>
        process.exit(Exit.isSuccess(exit) ? Number(exit.value) : Cause.hasInterruptsOnly(exit.cause) ? 0 : 1)
    })
  )

// The same file is the ledger thread's entry.
if (isDatabaseWorker()) serveDatabase(clientDatabases)
else main()

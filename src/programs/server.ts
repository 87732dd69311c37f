/**
 * `server.js`, the Postern server.
 *
 * @module
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Cause, Effect, Exit, Layer } from "effect"
import { isDatabaseWorker, serveDatabase } from "../adapters/sqlite/DatabaseWorker.ts"
import { serverDatabases } from "../adapters/sqlite/SqliteFleetStore.ts"
import { version } from "../schemas/Version.ts"
import { runProgram } from "./cli/Program.ts"
import { ProcessScreen } from "./cli/Screen.ts"
import { serverCommand } from "./server/Commands.ts"

const main = () =>
  runProgram(serverCommand(new URL(import.meta.url)), version, process.argv.slice(2)).pipe(
    Effect.provide(Layer.mergeAll(ProcessScreen, NodeServices.layer)),
    NodeRuntime.runMain({
      disableErrorReporting: true,
      // A signal ends the server in order: that is no failure.
      teardown: (exit) =>
        process.exit(Exit.isSuccess(exit) ? Number(exit.value) : Cause.hasInterruptsOnly(exit.cause) ? 0 : 1)
    })
  )

// The same file is the database threads' entry.
if (isDatabaseWorker()) serveDatabase(serverDatabases)
else main()

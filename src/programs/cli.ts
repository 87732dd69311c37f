/**
 * `postern`, the operator's command line.
 *
 * @module
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Effect, Exit, Layer } from "effect"
import { ChosenEngine } from "../adapters/ChosenEngine.ts"
import { programLog } from "../adapters/ProgramLog.ts"
import { SystemEntropy } from "../adapters/SystemEntropy.ts"
import { version } from "../schemas/Version.ts"
import { runProgram } from "./cli/Program.ts"
import { posternCommand } from "./cli/Root.ts"
import { ProcessScreen } from "./cli/Screen.ts"

/** What it warns of goes to stderr; nothing else logs here. */
const engine = ChosenEngine().pipe(Layer.provide(programLog({ format: "text", level: "warn" })))
const services = Layer.mergeAll(ProcessScreen, engine, SystemEntropy, NodeServices.layer)

runProgram(posternCommand, version, process.argv.slice(2)).pipe(
  Effect.provide(services),
  NodeRuntime.runMain({
    disableErrorReporting: true,
    // All output has been taken by now, so nothing is cut off.
    teardown: (exit) =>
      process.exit(Exit.isSuccess(exit) && typeof exit.value === "number" ? exit.value : 130)
  })
)

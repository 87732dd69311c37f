/**
 * `npm run demo`: the main job on one machine, with the built programs that lie beside this one.
 *
 * @module
 */
import { dirname } from "node:path"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Effect, Exit, Layer } from "effect"
import { Command, Flag } from "effect/cli"
import { BubblewrapJail } from "../adapters/BubblewrapJail.ts"
import { version } from "../schemas/Version.ts"
import { runProgram } from "./cli/Program.ts"
import { ProcessScreen } from "./cli/Screen.ts"
import { tellStory } from "./demo/Story.ts"

const demoCommand = Command.make(
  "demo.js",
  {
    data: Flag.String("data").pipe(
      Flag.withMetavar("FILE"),
      Flag.withDescription("A sensor series, one `unix_seconds,value` per line; default a generated one"),
      Flag.optional
    ),
    tor: Flag.Boolean("tor").pipe(
      Flag.withDescription(
        "Over a private Tor network on this machine, with the circuit's hops and what they cost (needs the package tor)"
      ),
      Flag.withDefault(false),
      Flag.withoutNegation
    )
  },
  ({ data, tor }) => tellStory(dirname(process.argv[1] as string), data, tor)
).pipe(
  Command.withDescription(
    "The main job of Postern on this machine: server, operator and device on loopback, with daily statistics over a sensor series as the work"
  ),
  Command.withExamples([
    { command: "demo.js", description: "With a generated series" },
    { command: "demo.js --data temperature.csv", description: "With your own" },
    { command: "demo.js --tor", description: "Over Tor, as devices in hostile networks do it" }
  ])
)

/** As for the client: where bubblewrap is, if not in the PATH. */
const bwrap = process.env["POSTERN_BWRAP"]
const jail = BubblewrapJail.layer(bwrap === undefined ? {} : { bwrap })

runProgram(demoCommand, version, process.argv.slice(2)).pipe(
  Effect.provide(Layer.mergeAll(ProcessScreen, jail, NodeServices.layer)),
  NodeRuntime.runMain({
    disableErrorReporting: true,
    teardown: (exit) =>
      process.exit(Exit.isSuccess(exit) && typeof exit.value === "number" ? exit.value : 130)
  })
)

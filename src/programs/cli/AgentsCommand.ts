/**
 * `postern agents`: the devices that message each other through the server, and what was refused of them.
 *
 * @module
 */
import { Clock, Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { ManagementClient } from "../../adapters/operator/ManagementClient.ts"
import { Name } from "../../schemas/Ids.ts"
import { agentRow, agentTableHeader, agentText, refusalTable } from "./AgentViews.ts"
import { allAgents } from "./Lists.ts"
import { out, outJson } from "./Screen.ts"
import { Json, withServer } from "./Settings.ts"
import { table } from "./Text.ts"

const list = Command.make(
  "list",
  {
    status: Flag.ChoiceWithValue("status", [
      ["connected", "C"],
      ["left", "DG"],
      ["lost", "DU"]
    ]).pipe(
      Flag.withDescription(
        "Only those that are connected, that left and said so, or that are gone without a word"
      ),
      Flag.optional
    )
  },
  Effect.fnUntraced(function* ({ status }) {
    const nowMs = yield* Clock.currentTimeMillis
    const agents = yield* allAgents(Option.getOrUndefined(status))
    if (yield* Json) return yield* outJson({ agents })
    if (agents.length === 0)
      return yield* out(
        Option.isSome(status)
          ? "There is no such agent.\n"
          : "No device has come as an agent yet. Accepted devices do so by themselves where agent.enabled is on.\n"
      )
    yield* out(
      table(
        agentTableHeader,
        agents.map((agent) => agentRow(agent, nowMs))
      )
    )
  }, withServer)
).pipe(
  Command.withDescription("The devices that have come as agents, and whether they are there"),
  Command.withExamples([
    { command: "postern agents list", description: "All of them, the hidden ones too" },
    { command: "postern agents list --status lost", description: "Those that are gone without a word" }
  ])
)

const show = Command.make(
  "show",
  {
    agent: Argument.String("agent").pipe(
      Argument.withDescription("The device's name"),
      Argument.withSchema(Name)
    )
  },
  Effect.fnUntraced(function* ({ agent }) {
    const client = yield* ManagementClient
    const nowMs = yield* Clock.currentTimeMillis
    const detail = yield* client.call(`ask for the agent ${agent}`, (api) =>
      api.messaging.agent({ params: { agent } })
    )
    if (yield* Json) return yield* outJson(detail)
    yield* out(agentText(detail, nowMs))
  }, withServer)
).pipe(
  Command.withDescription("Show one agent: its keys, what waits for it, and what of it was refused"),
  Command.withExamples([{ command: "postern agents show pi-cellar", description: "By the device's name" }])
)

const refusals = Command.make(
  "refusals",
  {
    limit: Flag.Int("limit").pipe(
      Flag.withMetavar("LINES"),
      Flag.withDescription("How many lines, those with the latest news"),
      Flag.withDefault(100)
    )
  },
  Effect.fnUntraced(function* ({ limit }) {
    const client = yield* ManagementClient
    const nowMs = yield* Clock.currentTimeMillis
    const page = yield* client.call("ask what was refused", (api) =>
      api.messaging.refusals({ query: { limit: Math.max(1, limit) } })
    )
    if (yield* Json) return yield* outJson(page)
    yield* out(refusalTable(page.refusals, nowMs))
  }, withServer)
).pipe(
  Command.withDescription(
    "How often messages were refused, by sender and reason; those of strangers are counted together"
  ),
  Command.withExamples([
    { command: "postern agents refusals", description: "Whose messages, why, and when the last one was" }
  ])
)

export const agentsCommand = Command.make("agents").pipe(
  Command.withDescription("Devices as agents: who is there, what waits for them, what was refused"),
  Command.withSubcommands([list, show, refusals])
)

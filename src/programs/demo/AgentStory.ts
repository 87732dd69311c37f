/**
 * The demo's step with messages: the device and an agent without a device's other work write to each other.
 *
 * @module
 */
import { readFileSync } from "node:fs"
import { Effect, Fiber } from "effect"
import { ask, operatorEnvironment, type, typed } from "./PosternCommands.ts"
import { type Service, startService, waitFor } from "./Processes.ts"
import { folderOf, program, type Stage, step, write } from "./Stage.ts"

/** The environment of a program whose agent is to be seen by others, which end-to-end messages need. */
export const visibleAgent = { POSTERN_AGENT_VISIBLE: "true" }

/** How long the second agent may take to be let in, and a message to arrive. */
const arriveMs = 90_000
const lookAgainMs = 100

const listening = (stage: Stage) => ["agent", "listen", "--state", folderOf(stage, "attic")]

/** Starts the second agent in the background: it is let in while other steps are shown. */
export const startTheAgent = (stage: Stage, settings: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const { invitation } = yield* ask(stage, ["invite", "--name", "pi-attic", "--preauthorise"])
    const [, configuration = ""] = settings
    return yield* startService({
      name: "agent",
      command: [...program(stage, "cli"), ...listening(stage)],
      environment: {
        ...operatorEnvironment(stage),
        ...visibleAgent,
        POSTERN_INVITATION: invitation as string,
        POSTERN_CONFIG: configuration
      },
      logFile: folderOf(stage, "attic.log")
    })
  }).pipe(Effect.forkScoped)

/** Waits until the device's agent knows the other one. */
const untilSeen = (stage: Stage, agent: Service) =>
  Effect.gen(function* () {
    let isSeen = false
    const look = Effect.gen(function* () {
      while (!isSeen) {
        const { agents } = yield* ask(stage, ["agent", "peers", "--state", folderOf(stage, "device")])
        isSeen = (agents as ReadonlyArray<{ readonly agent: string }>).some(
          ({ agent }) => agent === "pi-attic"
        )
        if (!isSeen) yield* Effect.sleep(lookAgainMs)
      }
    })
    const bounded = waitFor("its place in the list of agents", agent, () => isSeen || undefined, arriveMs)
    yield* Effect.raceFirst(look, Effect.asVoid(bounded))
  })

const messages = [
  ["public", "Anybody may read this, and anybody may have written it"],
  ["protected", "Anybody may read this; I wrote it"],
  ["private", "Broker services and you may read this"],
  ["end_to_end", "You alone may read this"]
] as const

/** What came, as the listening agent printed it; undefined before all of it has. */
const shown = (agent: Service): string | undefined => {
  const text = readFileSync(agent.logFile, "utf8")
  const came = text.slice(Math.max(text.search(/^\d{4}-/m), 0))
  return messages.every(([, body]) => text.includes(body)) && text.endsWith("\n") ? came : undefined
}

/** Shows one message of each level on its way, and a ping. */
export const showTheAgents = <E, E2>(stage: Stage, started: Fiber.Fiber<Service, E | E2>) =>
  Effect.gen(function* () {
    yield* step(
      stage,
      "Two agents",
      `Devices also write to each other, through broker services on the server. A second one has joined meanwhile: an agent
alone, without a jail or work. The report that this comes from has three levels; the fourth is sealed to the recipient.`
    )
    const agent = yield* Fiber.join(started)
    yield* write(`$ POSTERN_INVITATION=… ${typed(stage, listening(stage))} &\n`)
    yield* untilSeen(stage, agent)
    const flags = ["--state", folderOf(stage, "device")]
    for (const [level, body] of messages)
      yield* type(stage, ["agent", "send", ...flags, "--to", "pi-attic", "--level", level, body])
    yield* type(stage, ["agent", "ping", ...flags, "pi-attic", "--count", "1"])
    const came = yield* waitFor("the messages", agent, () => shown(agent), arriveMs)
    yield* write(`\nWhat the agent in the attic printed:\n${came}`)
  })

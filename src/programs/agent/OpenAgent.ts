/**
 * Opens an agent for a program: the one that runs on the state folder already, else one of its own. Used by the library and
 * by `postern agent` alike.
 */
import { Effect, Exit, Schedule, Scope } from "effect"
import { AgentTrouble } from "../../schemas/AgentLocal.ts"
import { attached, type OpenedAgent, type OwnAgentSettings } from "./OpenedAgent.ts"

/** The agent that runs on the settings' folder, or a new one that ends with the scope. */
const openAgentIn = (settings: OwnAgentSettings) =>
  Effect.gen(function* () {
    const running = yield* attached(settings.config.state_folder)
    if (running !== undefined) return running
    const { runOwnAgent } = yield* Effect.promise(() => import("./OwnAgent.ts"))
    return yield* runOwnAgent(settings)
  })

/** Who ends is followed by nobody, or by another program: so often that is looked at. */
const openAgain = Schedule.max([Schedule.spaced("200 millis"), Schedule.recurs(25)])

/** The same, once it is accepted. Where the program that ran it ends before that, it is opened again. */
export const openAcceptedIn = <E>(
  settings: OwnAgentSettings,
  untilAccepted: (opened: OpenedAgent) => Effect.Effect<void, E>
) =>
  Effect.flatMap(Effect.scope, (outer) =>
    Effect.gen(function* () {
      const scope = yield* Scope.fork(outer)
      return yield* Scope.provide(openAgentIn(settings), scope).pipe(
        Effect.tap(untilAccepted),
        Effect.onError(() => Scope.close(scope, Exit.void))
      )
    }).pipe(
      Effect.retry({
        while: (error) => error instanceof AgentTrouble && error.code === "gone",
        schedule: openAgain
      })
    )
  )

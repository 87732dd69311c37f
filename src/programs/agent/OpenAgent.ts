/**
 * Opens an agent for a program: the one that runs on the state folder already, else one of its own. Used by the library and
 * by `postern agent` alike.
 */
import { Effect } from "effect"
import { attached, type OwnAgentSettings } from "./OpenedAgent.ts"

/** The agent that runs on the settings' folder, or a new one that ends with the scope. */
export const openAgentIn = (settings: OwnAgentSettings) =>
  Effect.gen(function* () {
    const running = yield* attached(settings.config.state_folder)
    if (running !== undefined) return running
    const { runOwnAgent } = yield* Effect.promise(() => import("./OwnAgent.ts"))
    return yield* runOwnAgent(settings)
  })

/**
 * `postern/agent`: a smart agent for programs, with promises. Importing it loads this file alone; the rest follows with the
 * first call.
 *
 * @module
 */
import type { SmartAgents } from "./agent/Api.ts"

export * from "./agent/Api.ts"

/** Opens agents. */
export const SmartAgent: SmartAgents = {
  open: async (options) => (await import("./agent/PromisedAgent.ts")).openAgent(options),
  checkOrigin: async (proof, signingKey) =>
    (await import("./agent/CheckOrigin.ts")).checkOrigin(proof, signingKey)
}

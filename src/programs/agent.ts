/**
 * `postern/agent`: a smart agent for programs, with promises. Importing it loads this file alone; the rest follows with the
 * first call.
 *
 * @module
 */
import { AgentError, type SmartAgent as SmartAgentFace, type SmartAgents } from "./agent/Api.ts"

export * from "./agent/Api.ts"

/** A running agent. */
export type SmartAgent = SmartAgentFace

/** An older Node would stumble over what it lacks, in the middle of something else. */
const requireNode = (): void => {
  const { node } = process.versions
  const [major = 0, minor = 0] = node.split(".").map(Number)
  if (major < 22 || (major === 22 && minor < 19))
    throw new AgentError("misconfigured", `postern/agent needs Node 22.19 or newer, and this is ${node}`)
}

/** Opens agents. */
export const SmartAgent: SmartAgents = {
  open: async (options) => {
    requireNode()
    return (await import("./agent/PromisedAgent.ts")).openAgent(options)
  },
  checkOrigin: async (proof, signingKey) =>
    (await import("./agent/CheckOrigin.ts")).checkOrigin(proof, signingKey)
}

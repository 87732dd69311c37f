/**
 * The device as an agent: what its actor needs of the outside, and the actor itself under an optional supervisor of its own.
 * Nothing is opened, and neither `mqtt` nor a database is loaded, before there is trust and a broker.
 */
import { join } from "node:path"
import { Effect, Layer } from "effect"
import { SmartAgentKey } from "../../actors/ClientKeys.ts"
import { smartAgent } from "../../actors/SmartAgent.ts"
import { NodeAgentCrypto } from "../../adapters/mqtt/NodeAgentCrypto.ts"
import { offeredBus } from "../../adapters/mqtt/OfferedBus.ts"
import { makeConnections } from "../../adapters/net/Connections.ts"
import type { Routes } from "../../adapters/net/Routes.ts"
import { openLazily } from "../../adapters/sqlite/LazyDatabase.ts"
import { type AgentMethods, agentDatabase } from "../../adapters/sqlite/messages/AgentDatabase.ts"
import { makeAgentStore } from "../../adapters/sqlite/SqliteAgentStore.ts"
import { openInWorker } from "../../adapters/sqlite/WorkerDatabase.ts"
import { ChildSpec, Supervisor } from "../../kernel/index.ts"
import { AgentStore } from "../../ports/AgentStore.ts"
import { MessageBus } from "../../ports/MessageBus.ts"
import type { AgentConfig } from "../../schemas/AgentConfig.ts"
import type { Handshake } from "../../schemas/Agents.ts"

/** The file of an agent's messages. */
export const agentDatabasePath = (stateFolder: string): string => join(stateFolder, "agent.db")

/** Saying goodbye takes at most so long; the client has seconds to stop. */
const shutdownMs = 2_000
/** Each question and each answer is a task of some seconds. */
const maximumTasks = 4_096

/** The agent's messages in a thread of their own, from the first one on. `entry` as for the ledger. */
export const AgentStoreInWorker = (options: {
  readonly stateFolder: string
  readonly entry: URL
  readonly onTrouble: (reason: string) => void
}) =>
  Layer.effect(
    AgentStore,
    Effect.map(
      openLazily<AgentMethods>(
        openInWorker(agentDatabase, { ...options, path: agentDatabasePath(options.stateFolder) })
      ),
      makeAgentStore
    )
  )

/** What an agent needs of the outside, beside its store: its way to the broker, and its keys at work. */
export const AgentServices = (settings: AgentConfig, routes: Routes) =>
  Layer.merge(
    NodeAgentCrypto,
    Layer.effect(
      MessageBus,
      Effect.flatMap(makeConnections(routes), (connections) => offeredBus({ connections, settings }))
    )
  )

/** The agent's branch of a tree. It cannot hurt the others. */
export const agentBranch = ({
  edgeDevices = [],
  visible
}: Pick<AgentConfig, "visible"> & { readonly edgeDevices?: Handshake["edge_devices"] }) =>
  Supervisor.spec({
    id: "agent",
    strategy: "one-for-one",
    optional: true,
    children: [
      ChildSpec.make({
        key: SmartAgentKey,
        shutdownMs,
        maximumTasks,
        behaviour: smartAgent({ visible, edgeDevices })
      })
    ]
  })

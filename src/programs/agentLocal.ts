/**
 * What lets programs of one machine use the agent that runs there, as children of its tree: the inbox, which hands out what
 * came, and the socket. Neither can hurt the agent.
 */
import { agentInbox } from "../actors/AgentInbox.ts"
import { AgentInboxKey, AgentSocketKey, SmartAgentKey, TrustKeeperKey } from "../actors/ClientKeys.ts"
import { makeActorDesk } from "../adapters/agent/ActorDesk.ts"
import { agentGateway } from "../adapters/agent/AgentSocket.ts"
import { ChildSpec, Supervisor } from "../kernel/index.ts"

const shutdownMs = 500

/** One optional supervisor: the inbox first, since the socket asks it. */
export const agentLocal = (stateFolder: string) =>
  Supervisor.spec({
    id: "agent-local",
    strategy: "one-for-one",
    optional: true,
    children: [
      ChildSpec.make({ key: AgentInboxKey, shutdownMs, behaviour: agentInbox }),
      ChildSpec.make({
        key: AgentSocketKey,
        shutdownMs,
        behaviour: agentGateway({
          stateFolder,
          desk: (context) =>
            makeActorDesk({
              agent: context.ref(SmartAgentKey),
              inbox: context.ref(AgentInboxKey),
              trust: context.ref(TrustKeeperKey)
            })
        })
      })
    ]
  })

/**
 * The tree of a device that is an agent alone, on one screen. Children stand in start order and stop in the reverse one.
 *
 *     agent                       rest-for-one
 *     ├─ observers                optional
 *     │  └─ tunnel-keeper         keeps the way through Tor open, where one is needed
 *     ├─ vital                    one-for-one
 *     │  ├─ watchdog              hears the loops' heartbeats
 *     │  ├─ trust-keeper          root, enrolment, operators' decisions
 *     │  └─ main-loop             polls to be heard of, and takes no work
 *     ├─ agent                    optional, as in a client's tree
 *     │  └─ smart-agent           messages
 *     └─ agent-local              optional: the inbox, and the socket for other programs of this machine
 */
import { MainLoopKey, TrustKeeperKey, TunnelKeeperKey, WatchdogKey } from "../actors/ClientKeys.ts"
import { mainLoop } from "../actors/MainLoop.ts"
import { type TrustOptions, trustKeeper } from "../actors/TrustKeeper.ts"
import { tunnelKeeper } from "../actors/TunnelKeeper.ts"
import { watchdog } from "../actors/Watchdog.ts"
import { ChildSpec, Supervisor } from "../kernel/index.ts"
import type { Handshake } from "../schemas/Agents.ts"
import type { ClientConfig } from "../schemas/ClientConfig.ts"
import { agentLocal } from "./agentLocal.ts"
import { agentBranch } from "./client/Agent.ts"

export interface AgentTreeOptions {
  readonly config: ClientConfig
  readonly trust: TrustOptions
  readonly appearance: { readonly visible: boolean; readonly edgeDevices: Handshake["edge_devices"] }
}

const shutdownMs = 1_000
const tunnelShutdownMs = 2_500

export const agentTree = ({ appearance, config, trust }: AgentTreeOptions) =>
  Supervisor.spec({
    id: "agent-program",
    strategy: "rest-for-one",
    children: [
      Supervisor.spec({
        id: "observers",
        strategy: "one-for-one",
        optional: true,
        children: [
          ChildSpec.make({
            key: TunnelKeeperKey,
            shutdownMs: tunnelShutdownMs,
            behaviour: tunnelKeeper({ longestPauseMs: config.sleep_maximum_ms })
          })
        ]
      }),
      Supervisor.spec({
        id: "vital",
        strategy: "one-for-one",
        intensity: 5,
        children: [
          ChildSpec.make({
            key: WatchdogKey,
            shutdownMs,
            mailbox: { overflow: "drop-oldest" },
            behaviour: watchdog({
              loops: [
                { loop: "main-loop", vital: true },
                { loop: "trust-keeper", vital: true }
              ],
              roundMs: 15_000,
              graceMs: 60_000
            })
          }),
          ChildSpec.make({
            key: TrustKeeperKey,
            shutdownMs,
            behaviour: trustKeeper(trust, config.sleep_maximum_ms)
          }),
          ChildSpec.make({
            key: MainLoopKey,
            shutdownMs,
            behaviour: mainLoop({
              lanes: [],
              takesOrders: false,
              longPollMs: config.long_poll_ms,
              diskReserveBytes: config.disk_reserve_bytes,
              sleepMinimumMs: config.sleep_minimum_ms,
              sleepMaximumMs: config.sleep_maximum_ms,
              standing: [],
              hasAgent: true
            })
          })
        ]
      }),
      agentBranch(appearance),
      agentLocal(config.state_folder)
    ]
  })

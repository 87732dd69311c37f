/** The addresses of a device's actors. A tree binds them; everyone else refers to an actor by its key alone. */
import { ActorKey } from "../kernel/index.ts"
import { AgentInboxProtocol } from "../schemas/protocols/AgentInbox.ts"
import { ConnectivityProtocol } from "../schemas/protocols/Connectivity.ts"
import { GatewayProtocol } from "../schemas/protocols/Gateway.ts"
import { HealthLoopProtocol } from "../schemas/protocols/HealthLoop.ts"
import { HistorianProtocol } from "../schemas/protocols/Historian.ts"
import { JailGuardProtocol } from "../schemas/protocols/JailGuard.ts"
import { LaneProtocol } from "../schemas/protocols/Lane.ts"
import { MainLoopProtocol } from "../schemas/protocols/MainLoop.ts"
import { NotaryProtocol } from "../schemas/protocols/Notary.ts"
import { OutboxProtocol } from "../schemas/protocols/Outbox.ts"
import { SmartAgentProtocol } from "../schemas/protocols/SmartAgent.ts"
import { TrustKeeperProtocol } from "../schemas/protocols/TrustKeeper.ts"
import { TunnelKeeperProtocol } from "../schemas/protocols/TunnelKeeper.ts"
import { WatchdogProtocol } from "../schemas/protocols/Watchdog.ts"
import type { LaneName } from "../schemas/WorkOrder.ts"

export const WatchdogKey = ActorKey.make("watchdog", WatchdogProtocol)
export const NotaryKey = ActorKey.make("notary", NotaryProtocol)
export const OutboxKey = ActorKey.make("outbox", OutboxProtocol)
export const JailGuardKey = ActorKey.make("jail-guard", JailGuardProtocol)
export const TrustKeeperKey = ActorKey.make("trust-keeper", TrustKeeperProtocol)
export const MainLoopKey = ActorKey.make("main-loop", MainLoopProtocol)
export const HistorianKey = ActorKey.make("historian", HistorianProtocol)
export const TunnelKeeperKey = ActorKey.make("tunnel-keeper", TunnelKeeperProtocol)
export const ConnectivityKey = ActorKey.make("connectivity", ConnectivityProtocol)
export const HealthLoopKey = ActorKey.make("health-loop", HealthLoopProtocol)
export const ControlGatewayKey = ActorKey.make("control", GatewayProtocol)

/** One lane of each kind. */
export const LaneKeys = {
  job: ActorKey.make("lane-job", LaneProtocol),
  service: ActorKey.make("lane-service", LaneProtocol)
} satisfies Record<LaneName, ActorKey<never> | unknown>
/** The device as an agent. */
export const SmartAgentKey = ActorKey.make("smart-agent", SmartAgentProtocol)
/** What came for it, for whoever listens on this machine, and the socket by which they do. */
export const AgentInboxKey = ActorKey.make("agent-inbox", AgentInboxProtocol)
export const AgentSocketKey = ActorKey.make("agent-socket", GatewayProtocol)

/** The actors behind the APIs, as references that the program hands over. */
import type { RpcGroup } from "effect/rpc"
import type { ActorRef } from "../../kernel/index.ts"
import type { DeviceId } from "../../schemas/Ids.ts"
import type { BrokerKeeperProtocol } from "../../schemas/protocols/BrokerKeeper.ts"
import type { DeviceProtocol } from "../../schemas/protocols/Device.ts"
import type { DirectoryProtocol } from "../../schemas/protocols/Directory.ts"
import type { JobWatchProtocol } from "../../schemas/protocols/JobWatch.ts"
import type { RecorderProtocol } from "../../schemas/protocols/Recorder.ts"
import type { RegistrarProtocol } from "../../schemas/protocols/Registrar.ts"
import type { RetentionProtocol } from "../../schemas/protocols/Retention.ts"
import type { RolloutProtocol } from "../../schemas/protocols/Rollout.ts"
import type { RolloutsProtocol } from "../../schemas/protocols/Rollouts.ts"
import type { RolloutId } from "../../schemas/Rollout.ts"

export interface ServerActors {
  readonly registrar: ActorRef<RpcGroup.Rpcs<typeof RegistrarProtocol>>
  readonly jobWatch: ActorRef<RpcGroup.Rpcs<typeof JobWatchProtocol>>
  readonly recorder: ActorRef<RpcGroup.Rpcs<typeof RecorderProtocol>>
  readonly retention: ActorRef<RpcGroup.Rpcs<typeof RetentionProtocol>>
  /** The actor of one device; a send starts it. */
  readonly device: (id: DeviceId) => ActorRef<RpcGroup.Rpcs<typeof DeviceProtocol>>
  readonly rollouts: ActorRef<RpcGroup.Rpcs<typeof RolloutsProtocol>>
  /** Agents and the broker; there only where the server carries messages. */
  readonly directory: ActorRef<RpcGroup.Rpcs<typeof DirectoryProtocol>>
  readonly brokerKeeper: ActorRef<RpcGroup.Rpcs<typeof BrokerKeeperProtocol>>
  /** The actor of one rollout. */
  readonly rollout: (id: RolloutId) => ActorRef<RpcGroup.Rpcs<typeof RolloutProtocol>>
}

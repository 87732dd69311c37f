/** The addresses of the server's actors. */
import { ActorKey, DynamicKey } from "../kernel/index.ts"
import { BrokerKeeperProtocol } from "../schemas/protocols/BrokerKeeper.ts"
import { DeviceProtocol } from "../schemas/protocols/Device.ts"
import { DirectoryProtocol } from "../schemas/protocols/Directory.ts"
import { GatewayProtocol } from "../schemas/protocols/Gateway.ts"
import { JobWatchProtocol } from "../schemas/protocols/JobWatch.ts"
import { OnionKeeperProtocol } from "../schemas/protocols/OnionKeeper.ts"
import { RecorderProtocol } from "../schemas/protocols/Recorder.ts"
import { ReEncryptorProtocol } from "../schemas/protocols/ReEncryptor.ts"
import { RegistrarProtocol } from "../schemas/protocols/Registrar.ts"
import { RetentionProtocol } from "../schemas/protocols/Retention.ts"
import { RolloutProtocol } from "../schemas/protocols/Rollout.ts"
import { RolloutsProtocol } from "../schemas/protocols/Rollouts.ts"
import { RootWatchProtocol } from "../schemas/protocols/RootWatch.ts"

export const RegistrarKey = ActorKey.make("registrar", RegistrarProtocol)
export const JobWatchKey = ActorKey.make("job-watch", JobWatchProtocol)
export const RecorderKey = ActorKey.make("recorder", RecorderProtocol)
export const RootWatchKey = ActorKey.make("root-watch", RootWatchProtocol)
export const RetentionKey = ActorKey.make("retention", RetentionProtocol)
export const HttpGatewayKey = ActorKey.make("http", GatewayProtocol)
export const ControlGatewayKey = ActorKey.make("control", GatewayProtocol)
/** The doors of the onion services. */
export const EnrolDoorKey = ActorKey.make("enrol-door", GatewayProtocol)
export const DeviceDoorKey = ActorKey.make("device-door", GatewayProtocol)
export const ManagementDoorKey = ActorKey.make("management-door", GatewayProtocol)
export const RolloutsKey = ActorKey.make("rollout-keeper", RolloutsProtocol)
/** Bound only where the server has onion services. */
export const OnionKeeperKey = ActorKey.make("onion-keeper", OnionKeeperProtocol)
/** One actor per open rollout. */
export const RolloutKey = DynamicKey.make("rollouts", RolloutProtocol)
/** One actor per device id. */
export const DeviceKey = DynamicKey.make("devices", DeviceProtocol)
/** The MQTT broker, and what is on its way to recipients. */
export const BrokerKeeperKey = ActorKey.make("broker-keeper", BrokerKeeperProtocol)
/** Who the agents are. */
export const DirectoryKey = ActorKey.make("directory", DirectoryProtocol)
/** One actor per agent that sends. */
export const ReEncryptorKey = DynamicKey.make("re-encryptors", ReEncryptorProtocol)

/** Keeps the MQTT broker open, and brings what is to be delivered to it. */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { Count, DeviceId } from "../Ids.ts"
import { AgentName } from "../Topics.ts"

/** There is no broker at the moment. */
export class NoBroker extends Schema.TaggedError<NoBroker>()("NoBroker", { reason: Schema.String }) {}

const Delivery = Schema.Struct({
  place: Schema.Int,
  to: AgentName,
  inbox: Schema.Literals(["protected", "private"]),
  wire: Schema.Uint8Array
})

/** A document of broker services. */
export const BrokerPublication = Schema.Struct({
  topic: Schema.String,
  wire: Schema.Uint8Array,
  retain: Schema.Boolean
})
export type BrokerPublication = typeof BrokerPublication.Type

export const BrokerKeeperProtocol = RpcGroup.make(
  /** Where agents reach it. */
  Rpc.make("Addresses", { success: Schema.Array(Schema.String) }),
  Rpc.make("Connected", { success: Schema.Array(Schema.String) }),
  /** For operators: where it is reached, and how many connections stand. */
  Rpc.make("State", {
    success: Schema.Struct({ addresses: Schema.Array(Schema.String), connected: Count })
  }),
  /** These were stored: bring them to their recipients. A lost word costs until the next round. */
  Rpc.make("Dispatch", { payload: { deliveries: Schema.Array(Delivery) } }),
  /** An agent has come: bring it what waited for it. */
  Rpc.make("Came", { payload: { agent: AgentName } }),
  /** Publishes a document of broker services, for those who are there now and, where it is retained, those who come later. */
  Rpc.make("Publish", {
    payload: BrokerPublication,
    error: NoBroker
  }),
  /** The password of a device that is accepted under this name; null where its signed proof is the password. */
  Rpc.make("Password", {
    payload: { agent: AgentName, device: DeviceId },
    success: Schema.NullOr(Schema.String),
    error: NoBroker
  }),
  /** Cuts an agent off, session included. */
  Rpc.make("Expel", { payload: { agent: AgentName }, error: NoBroker }),
  Rpc.make("Due"),
  /** A round is done: what the broker has, and whether it failed. */
  Rpc.make("Delivered", { payload: { places: Schema.Array(Schema.Int), failed: Schema.Boolean } }),
  Rpc.make("Lost", { payload: { reason: Schema.String } })
)

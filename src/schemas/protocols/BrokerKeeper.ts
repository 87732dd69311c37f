/** Keeps the MQTT broker open, and brings what is to be delivered to it. */
import { Deferred, Effect, type Exit, Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { Count, DeviceId } from "../Ids.ts"
import { AgentName } from "../Topics.ts"
import { Ticket } from "./Ticket.ts"

/** There is no broker at the moment. */
export class NoBroker extends Schema.TaggedError<NoBroker>()("NoBroker", { reason: Schema.String }) {}

/** How something the broker was asked for has ended: it may take long, so it is waited for outside the actor. */
export type BrokerTicket<A> = Ticket<Exit.Exit<A, NoBroker>>

/** Asks for something and waits until the broker has done it, for so long in all. */
export const brokerAnswer = <A, E, R>(
  asking: Effect.Effect<BrokerTicket<A>, E, R>,
  timeoutMs: number
): Effect.Effect<A, E | NoBroker, R> =>
  Effect.flatMap(asking, ({ answer }) => Effect.flatten(Deferred.await(answer))).pipe(
    Effect.timeoutOrElse({
      duration: timeoutMs,
      orElse: () =>
        Effect.fail(new NoBroker({ reason: `the MQTT broker does not answer within ${timeoutMs} ms` }))
    })
  )

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
  /** These were stored: bring them to their recipients. A lost word costs until the next sweep. */
  Rpc.make("Dispatch", { payload: { deliveries: Schema.Array(Delivery) } }),
  /** An agent has come: bring it what waited for it. */
  Rpc.make("Came", { payload: { agent: AgentName } }),
  /**
   * Publishes a document of broker services, for those who are there now and, where it is retained, those who come later.
   * What is for one topic keeps its order. The ticket tells when the broker has it.
   */
  Rpc.make("Publish", {
    payload: BrokerPublication,
    success: Ticket<Exit.Exit<void, NoBroker>>(),
    error: NoBroker
  }),
  /** The password of a device that is accepted under this name; null where its signed proof is the password. */
  Rpc.make("Password", {
    payload: { agent: AgentName, device: DeviceId },
    success: Ticket<Exit.Exit<string | null, NoBroker>>(),
    error: NoBroker
  }),
  /** Cuts an agent off, session included. Nothing that waits here for it is brought from now on. */
  Rpc.make("Expel", {
    payload: { agent: AgentName },
    success: Ticket<Exit.Exit<void, NoBroker>>(),
    error: NoBroker
  }),
  /** A round that failed is tried again. */
  Rpc.make("Due"),
  /** The store is pruned, and looked through for what nobody told of. */
  Rpc.make("Sweep"),
  /** The store is pruned further. */
  Rpc.make("Prune"),
  /** A round is done: what the broker has, for whom it has no session, and whether it failed. */
  Rpc.make("Delivered", {
    payload: {
      places: Schema.Array(Schema.Int),
      absent: Schema.Array(AgentName),
      failed: Schema.Boolean
    }
  }),
  Rpc.make("Lost", { payload: { reason: Schema.String } })
)

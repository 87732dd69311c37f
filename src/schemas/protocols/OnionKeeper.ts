/** The onion keeper: keeps the server's onion services published, with the devices that may reach them. */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { OnionStatus } from "../OnionStatus.ts"

export const OnionKeeperProtocol = RpcGroup.make(
  /** Devices were accepted or turned away, or changed their onion key: the list is read again. */
  Rpc.make("ClientsChanged"),
  /** Invitations or pre-authorisations came or were used: it is looked at again whether enrolment is open. */
  Rpc.make("EnrolmentChanged"),
  /** How the services are now. */
  Rpc.make("Status", { success: OnionStatus }),
  /** The services are configured. To itself. */
  Rpc.make("Opened"),
  /** Time to work the list of devices out: what changed until now goes into it together. To itself. */
  Rpc.make("ClientsDue"),
  /** It is time to look whether all is as it should be. To itself. */
  Rpc.make("Due"),
  /** A piece of work has ended. To itself. */
  Rpc.make("Applied", { payload: { failure: Schema.NullOr(Schema.String) } }),
  /** tor has stood still for too long. To itself. */
  Rpc.make("Stalled"),
  /** tor has ended, does not answer or does not get on: the next life starts it again. To itself. */
  Rpc.make("Lost", { payload: { reason: Schema.String } })
)

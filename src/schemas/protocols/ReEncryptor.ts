/** Takes the messages of one agent: verifies, opens, decides, seals anew. */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"

/** Nothing could be stored: the message must come again. */
export class RelayUnavailable extends Schema.TaggedError<RelayUnavailable>()("RelayUnavailable", {
  reason: Schema.String
}) {}

export const ReEncryptorProtocol = RpcGroup.make(
  /**
   * Something the agent published. It is answered when what follows from it is safe, or nothing follows: a message that is
   * refused is counted, and answered like any other.
   */
  Rpc.make("Submit", {
    payload: { inbox: Schema.Literals(["protected", "private"]), wire: Schema.Uint8Array },
    error: RelayUnavailable
  })
)

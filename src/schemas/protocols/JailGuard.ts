/** The jail guard: knows whether there is a safe jail, by running the real engine from time to time. */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { JailReport } from "../JailProfile.ts"

/** What the last check found. Both null before the first check is done. */
export const JailVerdict = Schema.Struct({
  report: Schema.NullOr(JailReport),
  /** Why there is none, for people. */
  problem: Schema.NullOr(Schema.String)
})
export type JailVerdict = typeof JailVerdict.Type

export const JailGuardProtocol = RpcGroup.make(
  Rpc.make("Verdict", { success: JailVerdict }),
  /** Somebody found the jail wanting: check again at once. */
  Rpc.make("Recheck"),
  /** A check of its own has ended. */
  Rpc.make("Checked", { payload: JailVerdict }),
  Rpc.make("Due")
)

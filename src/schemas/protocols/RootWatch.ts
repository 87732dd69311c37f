/** The root watch: says in the server's log how near its end the trust root is. */
import { Rpc, RpcGroup } from "effect/rpc"

export const RootWatchProtocol = RpcGroup.make(Rpc.make("Due"))

/** The recorder: keeps health reports, off the way of orders. When it cannot keep up, the oldest are dropped. */
import { Rpc, RpcGroup } from "effect/rpc"
import { HealthReport } from "../Health.ts"
import { DeviceId, TimestampMs } from "../Ids.ts"

export const RecorderProtocol = RpcGroup.make(
  Rpc.make("Health", { payload: { device: DeviceId, report: HealthReport, receivedAtMs: TimestampMs } })
)

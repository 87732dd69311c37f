/** The historian: writes the device's own history. When it cannot keep up, the oldest are dropped. */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { Condition } from "../Conditions.ts"
import { HealthSample } from "../Health.ts"
import { HistoryEvent, HistoryView } from "../History.ts"
import { labelUpTo } from "../Ids.ts"

const { at_ms: _at, ...told } = HistoryEvent.fields

export const HistorianStatus = Schema.Struct({
  /** Why nothing is written at the moment; null where all is well, and before the first try. */
  trouble: Schema.NullOr(Schema.String),
  /** Where a damaged file was put in this life; null where there was none. */
  setAside: Schema.NullOr(Schema.String),
  /** The last leap of the device's time above the alarm's bound in this life, in words. */
  leapt: Schema.NullOr(Schema.String)
})
export type HistorianStatus = typeof HistorianStatus.Type

export const HistorianProtocol = RpcGroup.make(
  /** Something happened, now. */
  Rpc.make("Happened", { payload: told }),
  /** What the health loop saw: figures, all that is degraded, and the kernel's name of this boot. */
  Rpc.make("Seen", {
    payload: {
      sample: HealthSample,
      degraded: Schema.Array(Condition),
      boot: Schema.NullOr(labelUpTo(64))
    }
  }),
  Rpc.make("View", { success: HistoryView }),
  Rpc.make("Status", { success: HistorianStatus }),
  /** The program stops in order: written at once. */
  Rpc.make("Close"),
  Rpc.make("Due")
)

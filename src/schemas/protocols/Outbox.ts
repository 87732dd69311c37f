/** The outbox: sends output, artifacts and receipts to the server, oldest first, until each is acknowledged. */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { Count } from "../Ids.ts"
import { OrderProgress } from "../WorkOrder.ts"

/** How one round of sending ended. */
export const RoundEnd = Schema.Struct({
  sent: Count,
  /** `empty`: nothing waits. `more`: go on at once. `held`: what waits is put off. `failed`: the server is not reached. */
  kind: Schema.Literals(["empty", "more", "held", "failed"]),
  pauseMs: Count,
  detail: Schema.String
})
export type RoundEnd = typeof RoundEnd.Type

export const OutboxStatus = Schema.Struct({
  items: Count,
  bytes: Count,
  /** Whether the last round reached the server; null before the first. */
  reached: Schema.NullOr(Schema.Boolean),
  /** Items given up because the server will never take them. */
  dropped: Count
})
export type OutboxStatus = typeof OutboxStatus.Type

export const OutboxProtocol = RpcGroup.make(
  /** Something was put in. */
  Rpc.make("Wake"),
  /** The server is reached again: whatever pause there is ends. */
  Rpc.make("Reached"),
  /** A step on an order's way, told as soon as may be; the poll tells it again, so it may be lost. */
  Rpc.make("Progress", { payload: OrderProgress }),
  Rpc.make("Status", { success: OutboxStatus }),
  Rpc.make("RoundEnded", { payload: RoundEnd }),
  Rpc.make("Due"),
  Rpc.make("Restart")
)

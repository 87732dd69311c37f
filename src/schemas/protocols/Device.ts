/** The server's actor for one device: everything about it in one order, polls and submissions alike. */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { PollAnswer, PollRequest, ReceiptAcknowledgement } from "../DeviceApi.ts"
import { DsseEnvelope } from "../Dsse.ts"
import { DeviceId, OrderId, TimestampMs } from "../Ids.ts"
import { Conflict, NotFound, Refused, Unavailable } from "../ManagementApi.ts"
import { OrderProgress } from "../WorkOrder.ts"
import { Ticket, TicketId } from "./Ticket.ts"

/** What the server knows of a device's standing; `unknown` when it never enrolled. */
export const Standing = Schema.Literals(["unknown", "pending", "accepted", "rejected", "revoked"])
export type Standing = typeof Standing.Type

/** Only accepted devices may do this. */
export class NotAccepted extends Schema.TaggedError<NotAccepted>()("NotAccepted", {
  device: DeviceId,
  standing: Standing
}) {
  override get message(): string {
    return this.standing === "revoked"
      ? "an operator revoked this device"
      : `this device is ${this.standing}: an operator must accept it first`
  }
}

export const DeviceProtocol = RpcGroup.make(
  Rpc.make("Standing", { success: Standing, error: Unavailable }),
  /** `createdMs` is when the device made the request, by its own clock. */
  Rpc.make("Poll", {
    payload: { request: PollRequest, createdMs: TimestampMs },
    success: Ticket<PollAnswer>(),
    error: Unavailable
  }),
  /** The answer to a poll as it is now; the ticket is spent. */
  Rpc.make("Collect", { payload: { ticket: TicketId }, success: PollAnswer, error: Unavailable }),
  /** The poll's asker is gone. */
  Rpc.make("Withdraw", { payload: { ticket: TicketId } }),
  Rpc.make("Progress", {
    payload: { events: Schema.Array(OrderProgress) },
    error: Schema.Union([NotAccepted, Unavailable])
  }),
  Rpc.make("Receipts", {
    payload: { receipts: Schema.Array(DsseEnvelope) },
    success: ReceiptAcknowledgement,
    error: Schema.Union([NotAccepted, Refused, Unavailable])
  }),
  Rpc.make("Submit", {
    payload: { envelope: DsseEnvelope, actor: Schema.String },
    success: OrderId,
    error: Schema.Union([Refused, Conflict, Unavailable])
  }),
  Rpc.make("Cancel", {
    payload: { order: OrderId, envelope: DsseEnvelope, actor: Schema.String },
    error: Schema.Union([NotFound, Refused, Conflict, Unavailable])
  }),
  Rpc.make("Stop", {
    payload: { order: OrderId, actor: Schema.String },
    error: Schema.Union([NotFound, Conflict, Unavailable])
  }),
  /** The device's enrolment or admission changed. */
  Rpc.make("Changed")
)

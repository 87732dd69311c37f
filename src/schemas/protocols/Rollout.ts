/** One open rollout: releases its phases, pauses itself, hears the operators' words. It ends when the rollout does. */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { DsseEnvelope } from "../Dsse.ts"
import { Conflict, NotFound, Refused, Unavailable } from "../ManagementErrors.ts"

export const RolloutProtocol = RpcGroup.make(
  /** Something may have changed: an order came or ended, or time has passed. */
  Rpc.make("Look"),
  /** A signed pause, resume or abort. */
  Rpc.make("Control", {
    payload: { envelope: DsseEnvelope, actor: Schema.String },
    error: Schema.Union([NotFound, Refused, Conflict, Unavailable])
  })
)

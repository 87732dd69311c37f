/** By which key this device is let to its server's onion services: its own, or one that it shares with its group. */
import { Context, type Effect, Schema } from "effect"
import type { SharedOnionKey } from "../schemas/DeviceApi.ts"
import type { ServerId } from "../schemas/Ids.ts"
import type { OnionHost } from "../schemas/Onion.ts"

/** A shared key is not for this device, or tor does not take it; the one in use before goes on. */
export class OnionAccessError extends Schema.TaggedError<OnionAccessError>()("OnionAccessError", {
  reason: Schema.String,
  /** Whether the sealed key itself is no good: it will not do later either. */
  isFlawed: Schema.Boolean
}) {
  override get message(): string {
    return `the shared key to the onion service cannot be used: ${this.reason}`
  }
}

export class OnionAccess extends Context.Service<
  OnionAccess,
  {
    /**
     * Uses a key at these services from now on: one that the server sealed to this device, or null for the device's own.
     * The secret half never leaves the adapter's side.
     */
    readonly use: (
      hosts: ReadonlyArray<OnionHost>,
      shared: { readonly came: SharedOnionKey; readonly server: ServerId } | null
    ) => Effect.Effect<void, OnionAccessError>
    /** What tor remembers of the services is looked up anew: the server may have changed its list of keys. */
    readonly refresh: Effect.Effect<void>
  }
>()("postern/ports/OnionAccess") {}

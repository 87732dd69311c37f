/** The port through which the server is an onion service: what its keeper needs of tor. */
import { Context, type Effect, Schema, type Scope } from "effect"
import type { OnionClientKey, OnionHost } from "../schemas/Onion.ts"
import type { OnionServiceName, OnionStatus } from "../schemas/OnionStatus.ts"
import type { TunnelState } from "../schemas/TunnelState.ts"

/** The services could not be opened or changed; what was published before may be so still. */
export class OnionTrouble extends Schema.TaggedError<OnionTrouble>()("OnionTrouble", {
  operation: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `the onion services, ${this.operation}: ${this.reason}`
  }
}

/** A host for each service. They follow from keys alone, so they are known before tor runs. */
export type OnionHosts = Readonly<Record<OnionServiceName, OnionHost>>

/**
 * tor, running. Nothing is published when it is opened: the device service appears with the first `setClients`, so
 * never without authorisation, the enrol service with `publishEnrolment(true)`.
 */
export interface OpenOnionServices {
  /**
   * Who may reach the device service, besides a key nobody owns that is always among them: all keys, each time. Takes effect
   * within seconds and leaves open circuits alone: what a device may do is decided by its signed requests.
   */
  readonly setClients: (keys: ReadonlyArray<OnionClientKey>) => Effect.Effect<void, OnionTrouble>
  readonly publishEnrolment: (isOpen: boolean) => Effect.Effect<void, OnionTrouble>
  /** Looks whether tor answers and the services are as they were set; mends what is not. Fails where it cannot. */
  readonly check: Effect.Effect<void, OnionTrouble>
  readonly status: Effect.Effect<OnionStatus>
  /** How tor gets on; null where it is not the server's own to end. */
  readonly tunnel: Effect.Effect<TunnelState | null>
  /** Why tor is gone, once it is. */
  readonly ended: Effect.Effect<string>
}

export class OnionServices extends Context.Service<
  OnionServices,
  {
    readonly hosts: OnionHosts
    /** How it is while tor is not open: nothing published. */
    readonly closed: OnionStatus
    /** Starts tor or attaches to it; tor and services end with the scope. Does not wait for the network. */
    readonly open: Effect.Effect<OpenOnionServices, OnionTrouble, Scope.Scope>
  }
>()("postern/ports/OnionServices") {}

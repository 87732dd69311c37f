/**
 * The server's memory of rollouts, in the same registry as the orders: what releases or withholds an order is one
 * transaction with the rollout's own step, so no crash can part them.
 */
import type { Effect } from "effect"
import { Context } from "effect"
import type { DsseEnvelope } from "../schemas/Dsse.ts"
import type { DeviceId, Digest, OrderId } from "../schemas/Ids.ts"
import type { PauseReason, RolloutControl, RolloutId, RolloutPlan } from "../schemas/Rollout.ts"
import type {
  MemberStanding,
  RolloutMove,
  RolloutStanding,
  RolloutTally
} from "../schemas/RolloutJudgement.ts"
import type { StoreError } from "./FleetStore.ts"

export interface RolloutRow extends RolloutStanding {
  readonly envelope: DsseEnvelope
  readonly digest: Digest
  readonly reason: PauseReason | null
  readonly version: number
  readonly controlSequence: number
  readonly createdAtMs: number
  readonly createdBy: string
  readonly changedAtMs: number
}

/** A device of a rollout, and the order it gets. */
export interface RolloutMember extends MemberStanding {
  readonly device: DeviceId
  readonly order: OrderId
}

/** An order that a plan names. */
export interface PlannedOrder {
  readonly plan: RolloutPlan
  readonly device: DeviceId
  readonly ended: boolean
}

export class RolloutStore extends Context.Service<
  RolloutStore,
  {
    /** A verified plan. `in_rollout`: a device is in another open one. `too_many`: so many are open already. */
    readonly addRollout: (
      plan: RolloutPlan,
      envelope: DsseEnvelope,
      digest: Digest,
      actor: string,
      atMs: number
    ) => Effect.Effect<
      "added" | "same" | "id_taken" | "in_rollout" | "too_many" | "unknown_device",
      StoreError
    >
    readonly rollout: (id: RolloutId) => Effect.Effect<RolloutRow | null, StoreError>
    /** Newest first; open ones alone on demand. */
    readonly rollouts: (open: boolean, limit: number) => Effect.Effect<ReadonlyArray<RolloutRow>, StoreError>
    /** Of the orders, the open rollouts they belong to. */
    readonly rolloutsOf: (
      orders: ReadonlyArray<OrderId>
    ) => Effect.Effect<ReadonlyArray<RolloutId>, StoreError>
    readonly rolloutTally: (id: RolloutId) => Effect.Effect<ReadonlyArray<RolloutTally>, StoreError>
    readonly rolloutMembers: (id: RolloutId) => Effect.Effect<ReadonlyArray<RolloutMember>, StoreError>
    readonly rolloutControls: (id: RolloutId) => Effect.Effect<ReadonlyArray<DsseEnvelope>, StoreError>
    /** The plan that names an order, or null. */
    readonly plannedOrder: (order: OrderId) => Effect.Effect<PlannedOrder | null, StoreError>
    /**
     * Takes a step if the rollout still has the version it was judged by; else changes nothing and gives null. Gives the
     * devices for which something changed.
     */
    readonly moveRollout: (
      id: RolloutId,
      version: number,
      move: RolloutMove,
      atMs: number
    ) => Effect.Effect<ReadonlyArray<DeviceId> | null, StoreError>
    /**
     * A verified word of an operator. `excused` are the orders it accepts as not succeeded (resume). An order that was
     * never offered goes back behind the gate (pause) or is taken away (abort); one that was is asked to stop (abort).
     */
    readonly controlRollout: (
      control: RolloutControl,
      envelope: DsseEnvelope,
      excused: ReadonlyArray<OrderId>,
      actor: string,
      atMs: number
    ) => Effect.Effect<
      | { readonly outcome: "done"; readonly devices: ReadonlyArray<DeviceId> }
      | { readonly outcome: "same" | "stale" | "ended" | "not_paused" | "full" | "unknown" },
      StoreError
    >
  }
>()("postern/ports/RolloutStore") {}

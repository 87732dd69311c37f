/**
 * The server's memory of who may reach its onion service for devices, in the same registry as the devices: turning a device
 * away and spoiling the key it shared are one transaction.
 */
import { Context, type Effect } from "effect"
import type { DeviceId } from "../schemas/Ids.ts"
import type { OnionClientKey } from "../schemas/Onion.ts"
import type { StoreError } from "./FleetStore.ts"

/** An accepted device with a key of its own, sound or not. */
export interface AccessRow {
  readonly device: DeviceId
  readonly key: OnionClientKey
  /** 0 for a place of its own, the number of its group, or null before it has a place. */
  readonly group: number | null
  /** The shared key that it said it holds. */
  readonly held: OnionClientKey | null
  readonly enrolledAtMs: number
  /** When it was last heard, or asked to be let in. */
  readonly heardAtMs: number
}

/** Devices that share a key. */
export interface AccessGroupRow {
  /** From 1. */
  readonly id: number
  /** Rises with every key. */
  readonly version: number
  readonly key: OnionClientKey
  /** What the key's secret half is made from, together with the server's own. */
  readonly salt: string
  /** Whether a device has left it since the key was made. */
  readonly spoiled: boolean
}

export class AccessStore extends Context.Service<
  AccessStore,
  {
    readonly access: Effect.Effect<
      { readonly devices: ReadonlyArray<AccessRow>; readonly groups: ReadonlyArray<AccessGroupRow> },
      StoreError
    >
    /** Gives devices their places, and groups their keys; a device that was turned away meanwhile gets none. */
    readonly arrange: (
      changes: {
        readonly moves: ReadonlyArray<{ readonly device: DeviceId; readonly group: number }>
        readonly keys: ReadonlyArray<Pick<AccessGroupRow, "id" | "key" | "salt">>
        readonly ended: ReadonlyArray<number>
      },
      atMs: number
    ) => Effect.Effect<void, StoreError>
  }
>()("postern/ports/AccessStore") {}

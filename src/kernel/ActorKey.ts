/**
 * Typed names for addresses. A key says which protocol the actor behind it speaks; a program's tree binds it to a child
 * (`ChildSpec.make({ key, … })`), and everyone else refers to the actor by the key alone.
 */
import type { AnyRpc, NoStreams, Protocol } from "./Protocol.ts"

/** The name of one address that speaks the messages `Rpcs`. */
export interface ActorKey<Rpcs extends AnyRpc> {
  readonly _tag: "ActorKey"
  readonly name: string
  readonly protocol: Protocol<Rpcs>
}

/** The name of a family of addresses, one per id, all speaking `Rpcs` (one actor per device, per agent…). */
export interface DynamicKey<Rpcs extends AnyRpc> {
  readonly _tag: "DynamicKey"
  readonly name: string
  readonly protocol: Protocol<Rpcs>
}

/** Makes a typed name. Two keys with one name are the same key: names are unique within a program's tree. */
export const ActorKey = {
  make: <Rpcs extends AnyRpc>(name: string, protocol: Protocol<Rpcs> & NoStreams<Rpcs>): ActorKey<Rpcs> => ({
    _tag: "ActorKey",
    name,
    protocol
  })
}

/** Makes a typed name for a family of addresses. */
export const DynamicKey = {
  make: <Rpcs extends AnyRpc>(
    name: string,
    protocol: Protocol<Rpcs> & NoStreams<Rpcs>
  ): DynamicKey<Rpcs> => ({
    _tag: "DynamicKey",
    name,
    protocol
  })
}

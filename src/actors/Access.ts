/**
 * The list of keys to the onion service for devices, worked out of the store: devices get their places, groups their keys.
 * The store alone decides, so the list is the same after every start, and after a restore.
 */
import { Clock, Effect } from "effect"
import { isSoundOnionKey } from "../crypto/OnionKeys.ts"
import { base32Token } from "../crypto/Unguessable.ts"
import { AccessStore } from "../ports/AccessStore.ts"
import { Entropy } from "../ports/Entropy.ts"
import type { StoreError } from "../ports/FleetStore.ts"
import { GroupKeys } from "../ports/GroupKeys.ts"
import type { DeviceId } from "../schemas/Ids.ts"
import { Limits } from "../schemas/Limits.ts"
import type { OnionClientKey } from "../schemas/Onion.ts"
import {
  type AccessRoom,
  type AuthorisedKeys,
  arrangeAccess,
  authorisedKeys,
  mustPublish
} from "./AccessPlan.ts"

/** A salt that nobody meets twice. */
const saltBits = 160

/** What room there is, where so many devices may have keys of their own: half of the rest is for groups' keys. */
export const accessRoom = (maximumClients: number): AccessRoom => ({
  own: maximumClients,
  groups: Math.floor((Limits.onionKeys - maximumClients) / 2),
  total: Limits.onionKeys,
  groupSize: Limits.onionGroupDevices
})

/** The list as it is to be now. */
export interface Access extends AuthorisedKeys {
  /** Devices whose group has another key than before: they are to be told. */
  readonly stirred: ReadonlyArray<DeviceId>
  /** Whether the list last published is not good enough. */
  readonly mustPublish: boolean
}

/** Works the list out; one at a time. It remembers what was published last. */
export const makeAccess = (maximumClients: number) =>
  Effect.gen(function* () {
    const store = yield* AccessStore
    const groupKeys = yield* GroupKeys
    const entropy = yield* Entropy
    const room = accessRoom(maximumClients)
    let published: ReadonlySet<OnionClientKey> | null = null

    const current: Effect.Effect<Access, StoreError> = Effect.gen(function* () {
      const { devices, groups } = yield* store.access
      const members = devices.filter(({ key }) => isSoundOnionKey(key))
      const { ended, moves, renewed } = arrangeAccess(members, groups, room)
      const keys = yield* Effect.forEach(renewed, (id) =>
        Effect.map(base32Token(entropy, saltBits), (salt) => ({ id, salt, key: groupKeys.publicKey(salt) }))
      )
      if (keys.length + moves.length + ended.length > 0)
        yield* store.arrange({ moves, keys, ended }, yield* Clock.currentTimeMillis)
      const places = new Map(moves.map(({ device, group }) => [device, group]))
      const placed = members.map((member) => {
        const group = places.get(member.device)
        return group === undefined ? member : { ...member, group, held: null }
      })
      const made = new Map(keys.map((key) => [key.id, { ...key, spoiled: false }]))
      const gone = new Set([...ended, ...made.keys()])
      const after = [...groups.filter(({ id }) => !gone.has(id)), ...made.values()]
      const list = authorisedKeys(placed, after, room)
      const stirred = placed.filter(({ group }) => group !== null && made.has(group))
      const joined = moves.filter(({ group }) => group !== 0)
      return {
        ...list,
        stirred: [...new Set([...stirred, ...joined].map(({ device }) => device))],
        mustPublish: mustPublish(published, list, room)
      }
    })
    return {
      current,
      /** These are published now; null where that is not known. */
      published: (keys: ReadonlyArray<OnionClientKey> | null): void => {
        published = keys === null ? null : new Set(keys)
      }
    }
  })

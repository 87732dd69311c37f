/**
 * Who holds which key to the `device` onion service. A descriptor has room for some hundred keys only, so the first
 * devices stand in it by keys of their own and those who come later by keys that groups share. Pure functions of the fleet.
 *
 * What is kept, whatever happens (the tests hold it for fleets of any shape):
 *
 * - The keys never outgrow their room, and only accepted devices hold any of them: a group that somebody left gets another
 *   key at once, and the old one is in no list from then on. There is no time of grace for it.
 * - Nobody is shut out by that. Who is not known to hold the group's present key stands in the list by its own key until it
 *   says that it does; its program tries both. Where the room does not last for all of them, those who were heard last go
 *   first, and the others are named in `waiting`: for them the `enrol` service must be there.
 */
import type { DeviceId } from "../schemas/Ids.ts"
import type { OnionClientKey } from "../schemas/Onion.ts"

/** The group number of devices that stand in the list by their own keys. */
export const ownKey = 0

/** An accepted device that has a key. */
export interface AccessMember {
  readonly device: DeviceId
  /** Its own key. */
  readonly key: OnionClientKey
  /** {@link ownKey}, the number of its group, or null before it was given a place. */
  readonly group: number | null
  /** The shared key that it said it holds. */
  readonly held: OnionClientKey | null
  readonly enrolledAtMs: number
  /** When it was last heard, or asked to be let in. */
  readonly heardAtMs: number
}

export interface AccessGroup {
  /** From 1. */
  readonly id: number
  readonly key: OnionClientKey
  /** Whether somebody has left it since the key was made. */
  readonly spoiled: boolean
}

/** How many keys of each kind there may be. */
export interface AccessRoom {
  /** Devices that stand by their own keys. */
  readonly own: number
  readonly groups: number
  /** All keys together; what the first two leave is for members of groups who do not have the present key yet. */
  readonly total: number
  /** Groups get so many members each before a fleet of many groups makes them larger. */
  readonly groupSize: number
}

/** What is to be changed in the store. */
export interface AccessChanges {
  readonly moves: ReadonlyArray<{ readonly device: DeviceId; readonly group: number }>
  /** Groups that need another key: new ones, and those that somebody left. */
  readonly renewed: ReadonlyArray<number>
  /** Groups without members. */
  readonly ended: ReadonlyArray<number>
}

const byAge = (one: AccessMember, other: AccessMember): number =>
  one.enrolledAtMs - other.enrolledAtMs || (one.device < other.device ? -1 : 1)

const byHearing = (one: AccessMember, other: AccessMember): number =>
  other.heardAtMs - one.heardAtMs || (one.device < other.device ? -1 : 1)

/** Gives out places in groups: in the smallest one, or in a new one as long as there may be more. */
const makeSeats = (sizes: Map<number, number>, room: AccessRoom) => {
  const firstFree = (): number => {
    let id = 1
    while (sizes.has(id)) id++
    return id
  }
  return (): number => {
    const smallest = [...sizes].sort(([a, x], [b, y]) => x - y || a - b)[0]
    const isFull = smallest === undefined || smallest[1] >= room.groupSize
    const group = isFull && sizes.size < room.groups ? firstFree() : (smallest?.[0] ?? ownKey)
    if (group !== ownKey) sizes.set(group, (sizes.get(group) ?? 0) + 1)
    return group
  }
}

/** Where everybody belongs. Who has a place keeps it, unless there are fewer places than before. */
export const arrangeAccess = (
  members: ReadonlyArray<AccessMember>,
  groups: ReadonlyArray<AccessGroup>,
  room: AccessRoom
): AccessChanges => {
  const kept = new Set([...groups.map(({ id }) => id)].sort((a, b) => a - b).slice(0, room.groups))
  const own: Array<AccessMember> = []
  const homeless: Array<AccessMember> = []
  const sizes = new Map([...kept].map((id) => [id, 0]))
  for (const member of [...members].sort(byAge)) {
    const { group } = member
    if (group === ownKey && own.length < room.own) own.push(member)
    else if (group !== null && kept.has(group)) sizes.set(group, (sizes.get(group) as number) + 1)
    else homeless.push(member)
  }
  // A group that all have left is none: its number serves again, with another key.
  for (const [id, size] of sizes) if (size === 0) sizes.delete(id)
  const before = new Set(sizes.keys())
  const seat = makeSeats(sizes, room)
  let free = room.own - own.length
  const moves = homeless.map(({ device }) => ({ device, group: free-- > 0 ? ownKey : seat() }))
  const spoiled = new Set(groups.filter((group) => group.spoiled).map(({ id }) => id))
  const renewed = [...sizes.keys()].filter((id) => !before.has(id) || spoiled.has(id))
  const places = new Map(homeless.map(({ device, group }) => [device, group]))
  return {
    moves: moves.filter(({ device, group }) => places.get(device) !== group),
    renewed: renewed.sort((a, b) => a - b),
    ended: groups.map(({ id }) => id).filter((id) => !sizes.has(id))
  }
}

/** Who may know where the service is. */
export interface AuthorisedKeys {
  /** Keys that must be in the list, without doubles, in an order that tells nothing. */
  readonly keys: ReadonlyArray<OnionClientKey>
  /** Keys of accepted devices that may stay in it, though they need not. */
  readonly mayStay: ReadonlySet<OnionClientKey>
  /** Devices that can reach the `enrol` service only. */
  readonly waiting: ReadonlyArray<DeviceId>
}

/** The keys of a fleet that is arranged; see {@link arrangeAccess}. */
export const authorisedKeys = (
  members: ReadonlyArray<AccessMember>,
  groups: ReadonlyArray<AccessGroup>,
  room: AccessRoom
): AuthorisedKeys => {
  const sound = new Map(groups.filter(({ spoiled }) => !spoiled).map(({ id, key }) => [id, key]))
  const keys = new Set<OnionClientKey>()
  const lacking: Array<AccessMember> = []
  let own = 0
  for (const member of [...members].sort(byAge)) {
    const shared = member.group === null ? undefined : sound.get(member.group)
    if (member.group === ownKey && own++ < room.own) keys.add(member.key)
    else if (shared === undefined || member.held !== shared) lacking.push(member)
    if (shared !== undefined) keys.add(shared)
  }
  const waiting: Array<DeviceId> = []
  for (const { device, key } of lacking.sort(byHearing)) {
    if (keys.has(key)) continue
    if (keys.size < room.total) keys.add(key)
    else waiting.push(device)
  }
  return { keys: [...keys].sort(), mayStay: new Set(members.map(({ key }) => key)), waiting }
}

/** Whether a published list must be replaced: somebody is missing, or stands in it who must not. */
export const mustPublish = (
  published: ReadonlySet<OnionClientKey> | null,
  { keys, mayStay }: AuthorisedKeys,
  room: AccessRoom
): boolean => {
  if (published === null || published.size > room.total) return true
  const needed = new Set(keys)
  return (
    keys.some((key) => !published.has(key)) ||
    [...published].some((key) => !needed.has(key) && !mayStay.has(key))
  )
}

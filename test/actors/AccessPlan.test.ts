/** Whatever the fleet looks like, the list of keys to its onion service keeps what it promises. */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import {
  type AccessGroup,
  type AccessMember,
  type AccessRoom,
  arrangeAccess,
  authorisedKeys,
  mustPublish,
  ownKey
} from "../../src/actors/AccessPlan.ts"
import type { DeviceId } from "../../src/schemas/Ids.ts"
import type { OnionClientKey } from "../../src/schemas/Onion.ts"
import { scaled } from "../support/proof.ts"

const deviceOf = (n: number) => `device-${String(n).padStart(4, "0")}` as DeviceId
const keyOf = (n: number) => `OWN${n}` as OnionClientKey
const shared = (group: number, version: number) => `SHARED${group}.${version}` as OnionClientKey

const rooms: fc.Arbitrary<AccessRoom> = fc
  .record({
    own: fc.integer({ min: 1, max: 6 }),
    groups: fc.integer({ min: 0, max: 4 }),
    spare: fc.integer({ min: 0, max: 5 }),
    groupSize: fc.integer({ min: 1, max: 4 })
  })
  .map(({ groupSize, groups, own, spare }) => ({ own, groups, groupSize, total: own + groups + spare }))

type Step =
  | { readonly kind: "accept" | "revoke" | "poll" | "sleep" | "newKey"; readonly n: number }
  | { readonly kind: "room"; readonly room: AccessRoom }

const steps: fc.Arbitrary<ReadonlyArray<Step>> = fc.array(
  fc.oneof(
    {
      weight: 12,
      arbitrary: fc.record({
        kind: fc.constantFrom(
          "accept" as const,
          "accept" as const,
          "revoke" as const,
          "poll" as const,
          "newKey" as const
        ),
        n: fc.integer({ min: 0, max: 24 })
      })
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("room" as const), room: rooms }) }
  ),
  { maxLength: 60 }
)

/** A server and its devices as the store would have them, by the plan alone. */
class Fleet {
  room: AccessRoom
  members = new Map<number, AccessMember>()
  groups = new Map<number, AccessGroup>()
  published: ReadonlySet<OnionClientKey> | null = null
  /** Every key that a device which is revoked now ever had. */
  readonly burnt = new Set<OnionClientKey>()
  private version = 0
  private clock = 0

  constructor(room: AccessRoom) {
    this.room = room
  }

  arrange() {
    const changes = arrangeAccess([...this.members.values()], [...this.groups.values()], this.room)
    for (const id of changes.ended) this.groups.delete(id)
    for (const id of changes.renewed)
      this.groups.set(id, { id, key: shared(id, ++this.version), spoiled: false })
    for (const { device, group } of changes.moves) {
      const [n, member] = [...this.members].find(([, each]) => each.device === device) as [
        number,
        AccessMember
      ]
      this.members.set(n, { ...member, group, held: null })
    }
    return changes
  }

  keys() {
    return authorisedKeys([...this.members.values()], [...this.groups.values()], this.room)
  }

  take(step: Step): void {
    this.clock++
    if (step.kind === "room") {
      this.room = step.room
      return
    }
    const { n } = step
    const member = this.members.get(n)
    if (step.kind === "accept" && member === undefined) {
      const at = this.clock
      this.members.set(n, {
        device: deviceOf(n),
        key: keyOf(this.clock),
        group: null,
        held: null,
        enrolledAtMs: at,
        heardAtMs: at
      })
    }
    if (member === undefined) return
    if (step.kind === "revoke") {
      this.members.delete(n)
      this.burnt.add(member.key)
      const group = this.groups.get(member.group ?? -1)
      if (group !== undefined) {
        this.burnt.add(group.key)
        this.groups.set(group.id, { ...group, spoiled: true })
      }
    }
    const held = this.groups.get(member.group ?? -1)?.key ?? null
    if (step.kind === "poll") this.members.set(n, { ...member, held, heardAtMs: this.clock })
    if (step.kind === "newKey") this.members.set(n, { ...member, key: keyOf(this.clock) })
  }
}

const live = (room: AccessRoom, history: ReadonlyArray<Step>, check: (fleet: Fleet) => void) => {
  const fleet = new Fleet(room)
  for (const step of history) {
    fleet.take(step)
    fleet.arrange()
    check(fleet)
  }
}

const options = { numRuns: scaled(300) }

describe("the list of keys to the onion service", () => {
  it("never outgrows its room, has no key twice, and changes nothing when nothing changed", () => {
    fc.assert(
      fc.property(rooms, steps, (room, history) =>
        live(room, history, (fleet) => {
          const { keys } = fleet.keys()
          assert.isAtMost(keys.length, fleet.room.total)
          assert.strictEqual(new Set(keys).size, keys.length)
          assert.deepStrictEqual(fleet.arrange(), { moves: [], renewed: [], ended: [] })
        })
      ),
      options
    )
  })
  it("holds no key that a revoked device ever had, from the change on that revoked it", () => {
    fc.assert(
      fc.property(rooms, steps, (room, history) =>
        live(room, history, (fleet) => {
          const list = fleet.keys()
          for (const key of [...list.keys, ...list.mayStay]) assert.isFalse(fleet.burnt.has(key), key)
        })
      ),
      options
    )
  })
  it("lets every accepted device in, by its own key or one it holds, or names it as waiting for want of room", () => {
    fc.assert(
      fc.property(rooms, steps, (room, history) =>
        live(room, history, (fleet) => {
          const { keys, waiting } = fleet.keys()
          const list = new Set(keys)
          for (const { device, held, key } of fleet.members.values()) {
            const isIn = list.has(key) || (held !== null && list.has(held))
            assert.strictEqual(isIn, !waiting.includes(device), device)
          }
          if (waiting.length > 0) assert.strictEqual(keys.length, fleet.room.total)
        })
      ),
      options
    )
  })
  it("lets those who wait in as soon as they were heard and hold the key of their group", () => {
    fc.assert(
      fc.property(rooms, steps, (room, history) => {
        const fleet = new Fleet(room)
        for (const step of history) {
          fleet.take(step)
          fleet.arrange()
        }
        for (const n of [...fleet.members.keys()]) fleet.take({ kind: "poll", n })
        const grouped = [...fleet.members.values()].filter(({ group }) => group !== ownKey)
        if (fleet.room.groups > 0) {
          assert.deepStrictEqual(fleet.keys().waiting, [])
          assert.isTrue(grouped.every(({ held }) => held !== null && fleet.keys().keys.includes(held)))
        }
      }),
      options
    )
  })
  it("is published again only where somebody is missing in it or stands in it who must not", () => {
    fc.assert(
      fc.property(rooms, steps, (room, history) => {
        const fleet = new Fleet(room)
        let published: ReadonlySet<OnionClientKey> | null = null
        for (const step of history) {
          fleet.take(step)
          fleet.arrange()
          const list = fleet.keys()
          if (mustPublish(published, list, fleet.room)) published = new Set(list.keys)
          for (const key of list.keys) assert.isTrue(published?.has(key), key)
          for (const key of published ?? []) assert.isFalse(fleet.burnt.has(key), key)
          assert.isAtMost(published?.size ?? 0, fleet.room.total)
        }
      }),
      options
    )
  })
  it("gives keys of their own first, then places in groups, the smallest first", () => {
    const room = { own: 2, groups: 2, groupSize: 2, total: 8 }
    const fleet = new Fleet(room)
    for (let n = 0; n < 8; n++) {
      fleet.take({ kind: "accept", n })
      fleet.arrange()
    }
    const places = [...fleet.members.values()].map(({ group }) => group)
    assert.deepStrictEqual(places, [0, 0, 1, 1, 2, 2, 1, 2])
    // Two keys of their own, two of groups, and four of those who were not heard since; the two that have been silent longest wait.
    assert.strictEqual(fleet.keys().keys.length, 8)
    assert.deepStrictEqual(fleet.keys().waiting, [deviceOf(3), deviceOf(2)])
  })
})

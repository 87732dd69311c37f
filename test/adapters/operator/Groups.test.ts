import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { writeDeviceRecord } from "../../../src/adapters/operator/DeviceBook.ts"
import {
  addToGroup,
  groupRecords,
  groups,
  groupsOf,
  removeFromGroup
} from "../../../src/adapters/operator/Groups.ts"
import { type OperatorHome, OperatorHomeAt } from "../../../src/adapters/operator/OperatorHome.ts"
import { type DeviceId, Name } from "../../../src/schemas/Ids.ts"
import { Limits } from "../../../src/schemas/Limits.ts"
import { deviceRecord, otherDevice } from "../../support/operators.ts"

const inHome = <A, E>(use: Effect.Effect<A, E, OperatorHome>) =>
  Effect.acquireUseRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "postern-groups-"))),
    (folder) => Effect.provide(use, OperatorHomeAt(folder)),
    (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
  )

const cellars = Name.make("cellars")
const first = deviceRecord.device
const second = otherDevice.id as DeviceId
const idOf = (index: number) =>
  `dev_${index.toString(2).replaceAll("0", "a").replaceAll("1", "b").padStart(52, "a")}` as DeviceId

describe("groups of the device book", () => {
  it.effect("begin with their first device and end with their last", () =>
    inHome(
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* groups, [])
        yield* addToGroup(cellars, [first])
        const both = yield* addToGroup(cellars, [second, first])
        assert.deepStrictEqual(both.devices, [first, second])
        assert.deepStrictEqual(groupsOf(yield* groups, second), [cellars])
        yield* removeFromGroup(cellars, [first])
        yield* removeFromGroup(cellars, [second])
        assert.deepStrictEqual(yield* groups, [])
        assert.include((yield* Effect.flip(removeFromGroup(cellars, [first]))).message, "no group cellars")
      })
    )
  )

  it.effect("give the accepted devices only", () =>
    inHome(
      Effect.gen(function* () {
        yield* writeDeviceRecord(deviceRecord)
        yield* writeDeviceRecord({
          ...deviceRecord,
          device: second,
          name: Name.make("pi-attic"),
          status: "revoked"
        })
        yield* addToGroup(cellars, [first, second])
        assert.deepStrictEqual(
          (yield* groupRecords("cellars")).map(({ device }) => device),
          [first]
        )
        assert.include((yield* Effect.flip(groupRecords("attics"))).message, "no group attics")
      })
    )
  )

  it.effect("are bounded", () =>
    inHome(
      Effect.gen(function* () {
        const many = Array.from({ length: Limits.rolloutDevices + 1 }, (_, index) => idOf(index))
        assert.include((yield* Effect.flip(addToGroup(cellars, many))).message, "at most")
        yield* addToGroup(cellars, many.slice(1))
        assert.lengthOf((yield* groups)[0]?.devices ?? [], Limits.rolloutDevices)
      })
    )
  )
})

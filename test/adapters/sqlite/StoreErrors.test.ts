import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { type DatabaseHost, SqliteError } from "../../../src/adapters/sqlite/Database.ts"
import type { FleetMethods } from "../../../src/adapters/sqlite/fleet/FleetMethods.ts"
import type { SeriesMethods } from "../../../src/adapters/sqlite/fleet/SeriesDatabase.ts"
import type { RelayMethods } from "../../../src/adapters/sqlite/messages/RelayRows.ts"
import { makeFleetStore } from "../../../src/adapters/sqlite/SqliteFleetStore.ts"
import { makeMessageStore } from "../../../src/adapters/sqlite/SqliteMessageStore.ts"
import type { DeviceId } from "../../../src/schemas/Ids.ts"

const call = (operation: string) =>
  Effect.fail(new SqliteError({ database: "x", operation, code: "failed", reason: "the disk is full" }))

describe("an error of a store", () => {
  it.effect("says in its message what failed, and why", () =>
    Effect.gen(function* () {
      const messages = makeMessageStore({ call } as unknown as DatabaseHost<RelayMethods>)
      const fleet = makeFleetStore(
        { call } as unknown as DatabaseHost<FleetMethods>,
        { call } as unknown as DatabaseHost<SeriesMethods>,
        { maximumDevices: 1 }
      )
      const errors = [yield* Effect.flip(messages.agents), yield* Effect.flip(fleet.device("x" as DeviceId))]
      assert.deepStrictEqual(
        errors.map(({ message }) => message),
        [
          "the store of messages: agents: failed: the disk is full",
          "the store of the fleet: device: failed: the disk is full"
        ]
      )
    })
  )
})

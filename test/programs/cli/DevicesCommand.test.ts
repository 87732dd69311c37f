import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { writeDeviceRecord } from "../../../src/adapters/operator/DeviceBook.ts"
import { ManagementClient } from "../../../src/adapters/operator/ManagementClient.ts"
import { OperatorHomeAt } from "../../../src/adapters/operator/OperatorHome.ts"
import { CryptoEngine } from "../../../src/ports/CryptoEngine.ts"
import { knownDevices } from "../../../src/programs/cli/DevicesCommand.ts"
import { Screen } from "../../../src/programs/cli/Screen.ts"
import { deviceRecord, engine } from "../../support/operators.ts"

const silent = Layer.succeed(Screen, {
  outIsTerminal: false,
  errIsTerminal: false,
  canAsk: false,
  color: false,
  columns: () => 80,
  write: () => Effect.void,
  failure: () => undefined
})

/** What is known where the server gives these words of the device, one after the other, the first before the book is written. */
const afterAccepting = (words: ReadonlyArray<"pending" | "accepted">) =>
  Effect.acquireUseRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "postern-devices-"))),
    (folder) => {
      let asked = 0
      const home = OperatorHomeAt(folder)
      const list = () =>
        Effect.gen(function* () {
          const status = words[asked++]
          // Another command's decision, which ends while this one's question is on its way back.
          if (asked === 1) yield* writeDeviceRecord(deviceRecord)
          return { devices: [{ device: deviceRecord.device, name: deviceRecord.name, status }], next: null }
        }).pipe(Effect.provide(home))
      const server = Layer.succeed(ManagementClient, {
        address: "http://127.0.0.1:8470",
        call: (_what, use) => use({ devices: { list } } as never) as never
      })
      return knownDevices.pipe(
        Effect.map((known) => ({ asked, known })),
        Effect.provide(Layer.mergeAll(home, server, silent, Layer.succeed(CryptoEngine, engine)))
      )
    },
    (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
  )

describe("devices that server and book know", () => {
  it.effect("are no alarm where they were accepted between the two readings", () =>
    Effect.gen(function* () {
      const { asked, known } = yield* afterAccepting(["pending", "accepted"])
      assert.deepStrictEqual(
        known.map(({ alarms, record, view }) => [view?.status, record?.status, alarms]),
        [["accepted", "accepted", []]]
      )
      assert.strictEqual(asked, 2)
    })
  )

  it.effect("are one where the server says the same again", () =>
    Effect.gen(function* () {
      const { known } = yield* afterAccepting(["pending", "pending"])
      assert.deepStrictEqual(
        known.map(({ alarms }) => alarms),
        [[`the server calls ${deviceRecord.name} pending, you accepted it`]]
      )
    })
  )
})

import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { deviceRecord as recordOf, writeDeviceRecord } from "../../../src/adapters/operator/DeviceBook.ts"
import { ManagementClient } from "../../../src/adapters/operator/ManagementClient.ts"
import { OperatorHomeAt } from "../../../src/adapters/operator/OperatorHome.ts"
import { CryptoEngine } from "../../../src/ports/CryptoEngine.ts"
import { syncReceipts } from "../../../src/programs/cli/Verification.ts"
import type { Digest } from "../../../src/schemas/Ids.ts"
import { Limits } from "../../../src/schemas/Limits.ts"
import { deviceRecord, engine, signedOrder, signedReceipt } from "../../support/operators.ts"

/** A chain of so many receipts. */
const chainOf = (length: number) => {
  let previous: Digest | null = null
  return Array.from({ length }, (_, index) => {
    const signed = signedReceipt(index + 1, previous, signedOrder(index + 1))
    previous = signed.digest
    return { number: index + 1, digest: signed.digest, envelope: signed.envelope }
  })
}

/** A server with these receipts; counts the pages it gives. */
const serverWith = (receipts: ReturnType<typeof chainOf>, asked: Array<number>) => {
  const api = {
    devices: {
      receipts: ({ query }: { readonly query: { readonly from: number } }) => {
        asked.push(query.from)
        const page = receipts.filter(({ number }) => number >= query.from).slice(0, Limits.receiptsPerPage)
        return Effect.succeed({ receipts: page, pruned_below: null })
      }
    }
  }
  return Layer.succeed(ManagementClient, {
    address: "http://127.0.0.1:8470",
    call: (_what, use) => use(api as never) as never
  })
}

const synced = (length: number) =>
  Effect.acquireUseRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "postern-chain-"))),
    (folder) =>
      Effect.gen(function* () {
        const asked: Array<number> = []
        const services = Layer.mergeAll(
          OperatorHomeAt(folder),
          serverWith(chainOf(length), asked),
          Layer.succeed(CryptoEngine, engine)
        )
        return yield* Effect.gen(function* () {
          yield* writeDeviceRecord(deviceRecord)
          const alarms = yield* syncReceipts(deviceRecord.device)
          const record = yield* recordOf(deviceRecord.device)
          return { alarms, asked, head: record?.last_receipt?.number ?? null }
        }).pipe(Effect.provide(services))
      }),
    (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
  )

describe("a device's chain of receipts", () => {
  it.effect("is fetched in as many pages as it has", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* synced(0), { alarms: [], asked: [1], head: null })
      assert.deepStrictEqual(yield* synced(3), { alarms: [], asked: [1], head: 3 })
      const more = Limits.receiptsPerPage + 5
      assert.deepStrictEqual(yield* synced(more), {
        alarms: [],
        asked: [1, Limits.receiptsPerPage],
        head: more
      })
    })
  )
})

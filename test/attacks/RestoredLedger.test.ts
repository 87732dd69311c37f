/** A device whose ledger is set back, or lives twice: nothing it took before may begin a second time. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { type DatabaseSync, openDatabase } from "../../src/adapters/sqlite/Database.ts"
import { admissionOf, device as deviceId, signAdmission } from "../actors/support/Parties.ts"
import { deviceUnderTest, type TestDevice } from "../actors/support/TestDevice.ts"
import { siege } from "./support/Siege.ts"

const minute = 60_000
const slow = { script: ["sleep:30000", "exit:0"] }

/** A copy of the ledger as it is now, as a backup of the card would hold it. */
const backUp = (device: TestDevice): DatabaseSync => {
  const folder = mkdtempSync(join(tmpdir(), "postern-backup-"))
  try {
    const path = join(folder, "ledger.db")
    device.database.exec(`VACUUM INTO '${path}'`)
    const copy = openDatabase(":memory:")
    copy.exec(`ATTACH '${path}' AS kept`)
    for (const { sql } of copy.prepare("SELECT sql FROM kept.sqlite_master WHERE sql IS NOT NULL").all()) {
      if (!String(sql).includes("sqlite_sequence")) copy.exec(String(sql))
    }
    for (const { name } of copy.prepare("SELECT name FROM kept.sqlite_master WHERE type = 'table'").all()) {
      if (name !== "sqlite_sequence") copy.exec(`INSERT INTO "${name}" SELECT * FROM kept."${name}"`)
    }
    copy.exec("PRAGMA user_version = 1; DETACH kept")
    return copy
  } finally {
    rmSync(folder, { recursive: true })
  }
}

const restore = (device: TestDevice, copy: DatabaseSync) => {
  device.database.close()
  ;(device as { database: DatabaseSync }).database = copy
}

/** Two orders taken, the first begun; then a backup; then both done. */
const doneAfterBackup = Effect.gen(function* () {
  const device = yield* deviceUnderTest()
  device.server.submit(1, slow)
  device.server.submit(2, slow)
  yield* device.until(() => device.host.runs.length === 1, "the first run")
  const copy = backUp(device)
  yield* device.until(() => device.server.receipts.length === 2, "both receipts")
  yield* device.stop
  restore(device, copy)
  return device
})

describe("rollback: a device restored from a backup", () => {
  it.effect("runs nothing again that its backup still held as waiting", () =>
    Effect.gen(function* () {
      const device = yield* doneAfterBackup
      device.server.objection = "ledger_rolled_back"
      yield* device.start
      yield* device.pass(5 * minute)
      expect(device.host.runs).toHaveLength(2)
      expect(device.server.polls.at(-1)?.blocked).toBe("ledger_rolled_back")
    })
  )
  it.effect("runs it not even once an operator has accepted the device again, but what is new", () =>
    Effect.gen(function* () {
      const device = yield* doneAfterBackup
      device.server.objection = "ledger_rolled_back"
      yield* device.start
      yield* device.until(() => device.server.polls.at(-1)?.blocked === "ledger_rolled_back", "the objection")
      device.server.objection = null
      device.server.admission = signAdmission(
        admissionOf(device.ledger?.incarnation as never, { sequence: 2 })
      )
      device.server.receipts.length = 0
      const fresh = device.server.submit(3, { script: ["exit:0"] })
      yield* device.until(() => device.server.receiptOf(fresh.id) !== undefined, "the new order")
      expect(device.server.receiptOf(fresh.id)).toMatchObject({ state: "succeeded" })
      expect(device.host.runs).toHaveLength(3)
    })
  )
  it.effect("begins nothing before the server has said whether it knows more", () =>
    Effect.gen(function* () {
      const device = yield* doneAfterBackup
      device.server.refusals.poll = "overloaded"
      yield* device.start
      yield* device.pass(5 * minute)
      expect(device.host.runs).toHaveLength(2)
    })
  )
})

describe("rollback: between the real device and the real server", () => {
  it.effect("is noticed, runs nothing twice, and is mended by an operator's new decision", () =>
    Effect.gen(function* () {
      const besieged = yield* siege
      const { device, server } = besieged
      const first = yield* besieged.submit(1, slow)
      const second = yield* besieged.submit(2, slow)
      yield* device.until(() => device.host.runs.length === 1, "the first run")
      yield* device.pass(10_000)
      const copy = backUp(device)
      for (const { order } of [first, second])
        expect((yield* besieged.ended(order.id)).state).toBe("succeeded")
      yield* device.stop
      restore(device, copy)
      yield* device.start
      const store = (server.life as NonNullable<typeof server.life>).store
      const row = Effect.orDie(store.device(deviceId))
      for (let n = 0; n < 120 && (yield* row)?.objection === null; n++) yield* device.pass(1_000)
      expect((yield* row)?.objection).toBe("ledger_rolled_back")
      yield* device.pass(5 * minute)
      expect(device.host.runs).toHaveLength(2)
      const envelope = signAdmission(admissionOf(device.ledger?.incarnation as never, { sequence: 2 }))
      yield* Effect.orDie(
        server.registrar?.ask("Admit", { device: deviceId, envelope, actor: "operator" }) ?? Effect.void
      )
      const third = yield* besieged.submit(3)
      expect((yield* besieged.ended(third.order.id, 60 * minute)).state).toBe("succeeded")
      expect(device.host.runs).toHaveLength(3)
      yield* device.pass(60 * minute, 10_000)
      const left = yield* Effect.orDie((device.ledger as NonNullable<typeof device.ledger>).outboxSize)
      expect(left.items).toBe(0)
      for (const { order } of [first, second])
        expect((yield* besieged.job(order.id))?.state).toBe("succeeded")
    })
  )
})

describe.each(["ledger_rolled_back", "cloned"] as const)("an objection (%s)", (objection) => {
  it.effect("is taken away by a new decision of an operator, by nothing else: no restart, no server", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      device.server.objection = objection
      yield* device.until(() => device.server.polls.at(-1)?.blocked === objection, "the objection")
      device.server.objection = null
      device.server.rude = true
      const order = device.server.submit(1, { script: ["exit:0"] })
      yield* device.pass(2 * minute)
      yield* device.crash
      yield* device.start
      yield* device.pass(2 * minute)
      expect(device.host.runs).toHaveLength(0)
      expect(device.server.polls.at(-1)?.blocked).toBe(objection)
      device.server.admission = signAdmission(
        admissionOf(device.ledger?.incarnation as never, { sequence: 2 })
      )
      yield* device.until(() => device.server.receiptOf(order.id) !== undefined, "the receipt")
      expect(device.server.receiptOf(order.id)).toMatchObject({ state: "succeeded" })
    })
  )
  it.effect("ends what waits on the device, since it may have begun elsewhere, and says why", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      device.server.submit(1, slow)
      const second = device.server.submit(2, slow)
      yield* device.until(() => device.host.runs.length === 1, "the first run")
      device.server.objection = objection
      device.server.stir()
      yield* device.until(() => device.server.receiptOf(second.id) !== undefined, "the refusal", 5 * minute)
      expect(device.server.receiptOf(second.id)).toMatchObject({
        state: "rejected",
        reason: "ledger_doubtful",
        attempts: 0
      })
      expect(device.host.runs).toHaveLength(1)
    })
  )
})

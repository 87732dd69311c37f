/** The program dies before and after every single change of the ledger: nothing is lost, nothing is run twice. */
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect } from "effect"
import { Limits } from "../../src/schemas/Limits.ts"
import type { Receipt } from "../../src/schemas/Receipt.ts"
import type { PackagePlan } from "./support/Parties.ts"
import { digestOfReceipt } from "./support/Receipts.ts"
import { TestDevice } from "./support/TestDevice.ts"

interface Moment {
  readonly step: number
  readonly moment: "before" | "after"
}

const plan = (idempotent: boolean): PackagePlan => ({
  script: ["out:one", "sleep:2000", "out:two", "leave:result:100", "exit:0"],
  artifacts: ["result"],
  idempotent
})

/** Runs one order through a device that dies at `at` (or never); gives the device and the calls its ledger saw. */
const live = (idempotent: boolean, at: Moment | null) =>
  Effect.gen(function* () {
    const device = new TestDevice()
    const steps: Array<string> = []
    const died = Deferred.makeUnsafe<void>()
    device.tap = (method, moment) =>
      Effect.suspend(() => {
        if (moment === "before") steps.push(method)
        if (at === null || at.moment !== moment || steps.length !== at.step) return Effect.void
        return Effect.andThen(Deferred.succeed(died, undefined), Effect.never)
      })
    yield* device.start
    const order = device.server.submit(1, plan(idempotent))
    const finished = () => device.server.receiptOf(order.id) !== undefined
    yield* device.until(() => finished() || Deferred.isDoneUnsafe(died), "the end or the crash")
    // What is sent last (acknowledgements) comes after the receipt is seen.
    yield* device.until(() => at === null || Deferred.isDoneUnsafe(died), "the crash", 120_000)
    if (at !== null) {
      yield* device.crash
      device.tap = () => Effect.void
      yield* device.start
      yield* device.until(finished, `the receipt after a crash at step ${at.step}`)
      yield* device.pass(60_000)
    }
    yield* device.pass(10_000)
    const row = yield* (device.ledger as NonNullable<typeof device.ledger>).find(order.id)
    const waiting = yield* (device.ledger as NonNullable<typeof device.ledger>).outboxSize
    yield* device.stop
    device.database.close()
    return { device, order, steps, row, waiting }
  })

const chainHolds = (receipts: ReadonlyArray<Receipt>) => {
  for (const [index, receipt] of receipts.entries()) {
    expect(receipt.number).toBe(index + 1)
    const before = receipts[index - 1]
    expect(receipt.previous).toBe(before === undefined ? null : digestOfReceipt(before))
  }
}

describe.each([
  { idempotent: false, name: "an order that may run once" },
  { idempotent: true, name: "an idempotent order" }
])("$name", ({ idempotent }) => {
  it.effect(
    "survives a crash at every step",
    () =>
      Effect.gen(function* () {
        const { row, steps, waiting } = yield* live(idempotent, null)
        expect(row?.state).toBe("succeeded")
        expect(waiting.items).toBe(0)
        // The whole way: trust, acceptance, download, run, output, end, and every acknowledgement.
        for (const step of [
          "setNote",
          "accept",
          "advance",
          "begin",
          "putOutput",
          "conclude",
          "acknowledge"
        ]) {
          expect(steps).toContain(step)
        }
        for (let step = 1; step <= steps.length; step++) {
          for (const moment of ["before", "after"] as const) {
            const crashed = yield* live(idempotent, { step, moment })
            const { device, order } = crashed
            const about = `crash ${moment} ${steps[step - 1]} (step ${step})`
            const runs = device.host.runs.filter((run) => run.order === order.id).length
            const receipts = device.server.receipts.filter((receipt) => receipt.order === order.id)
            expect(receipts, about).toHaveLength(1)
            expect(crashed.row?.state, about).toBe(receipts[0]?.state)
            expect(crashed.waiting.items, about).toBe(0)
            chainHolds(device.server.receipts)
            if (idempotent) {
              expect(runs, about).toBeLessThanOrEqual(Limits.runAttempts)
              expect(receipts[0], about).toMatchObject({ state: "succeeded", exit_code: 0 })
            } else {
              expect(runs, about).toBeLessThanOrEqual(1)
              expect(["succeeded", "interrupted"], about).toContain(receipts[0]?.state)
              if (receipts[0]?.state === "interrupted")
                expect(receipts[0].reason, about).toBe("crashed_in_run")
            }
            if (receipts[0]?.state === "succeeded") {
              expect(device.server.artifacts.has(order.id), about).toBe(true)
              expect(device.server.output.get(order.id)?.size ?? 0, about).toBeGreaterThanOrEqual(
                receipts[0].output?.chunks ?? 0
              )
            }
            expect(device.host.files.size, about).toBe(0)
          }
        }
      }),
    120_000
  )
})

describe("an idempotent order that is cut off every time", () => {
  it.effect("ends as interrupted after its last attempt", () =>
    Effect.gen(function* () {
      const device = new TestDevice()
      yield* device.start
      const order = device.server.submit(1, { script: ["sleep:600000"], idempotent: true })
      for (let attempt = 1; attempt <= Limits.runAttempts; attempt++) {
        yield* device.until(() => device.host.runs.length === attempt, `run ${attempt}`)
        yield* device.crash
        yield* device.start
      }
      yield* device.until(() => device.server.receiptOf(order.id) !== undefined, "the receipt")
      expect(device.server.receiptOf(order.id)).toMatchObject({
        state: "interrupted",
        reason: "attempts_used",
        attempts: Limits.runAttempts
      })
      expect(device.host.runs).toHaveLength(Limits.runAttempts)
      yield* device.stop
      device.database.close()
    })
  )
})

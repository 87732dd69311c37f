/**
 * Clocks that are wrong by hours and years, in both directions: at boot, and jumping while the device works. Each ends by
 * itself once the server is reached, and nothing that has expired is run because a clock was set back.
 */
import { describe, expect, it } from "@effect/vitest"
import { Clock, Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import { ledgerDeviceClock } from "../../src/adapters/LedgerDeviceClock.ts"
import { SqliteLedgerOver } from "../../src/adapters/SqliteLedger.ts"
import type { DatabaseSync } from "../../src/adapters/sqlite/Database.ts"
import { DeviceClock } from "../../src/ports/DeviceClock.ts"
import type { PollRequest } from "../../src/schemas/DeviceApi.ts"
import type { DeviceStatement } from "../../src/schemas/DeviceStatement.ts"
import { SeededEntropy } from "../crypto/SeededEntropy.ts"
import { siege } from "./support/Siege.ts"

const hour = 3_600_000
const day = 24 * hour
const year = 365 * day

/** A machine whose wall clock is wrong by so much, changeable while it runs; its monotonic clock is right. */
const wrongClock = (clock: Clock.Clock, wrong: { byMs: number }): Clock.Clock => ({
  ...clock,
  sleep: (duration) => clock.sleep(duration),
  currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + wrong.byMs,
  currentTimeMillis: Effect.map(clock.currentTimeMillis, (ms) => ms + wrong.byMs),
  monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
  monotonicTimeNanos: clock.monotonicTimeNanos
})

/** When it all happens: within the life of the tests' root. */
const present = 500 * day
const long = { issued_at_ms: present, expires_at_ms: present + 50 * day, deadline_at_ms: present + 50 * day }

/** An accepted device, switched off for half a day and started again with another clock. */
const rebooted = Effect.fnUntraced(function* (wrong: { byMs: number }) {
  yield* TestClock.setTime(present)
  const besieged = yield* siege
  const { device } = besieged
  yield* device.stop
  yield* TestClock.adjust(12 * hour)
  besieged.seen.length = 0
  const clock = yield* Clock.Clock
  yield* Effect.provideService(device.start, Clock.Clock, wrongClock(clock, wrong))
  return besieged
})

type Besieged = Effect.Success<ReturnType<typeof rebooted>>

const lastPoll = (besieged: Besieged): PollRequest | undefined => {
  const polls = besieged.seen.filter(
    ({ request, response }) => request.path.endsWith("/poll") && response.status === 200
  )
  const body = polls.at(-1)?.request.body
  return body === undefined ? undefined : (JSON.parse(Buffer.from(body).toString()) as PollRequest)
}

/** The device's time, as it signs it into its last poll. */
const deviceTime = (besieged: Besieged): number => {
  const payload = lastPoll(besieged)?.statement.payload ?? ""
  return (JSON.parse(Buffer.from(payload, "base64").toString()) as DeviceStatement).at_ms
}

const errors = [
  ["hours behind", -5 * hour],
  ["hours ahead", 5 * hour],
  ["years behind", -20 * year],
  ["years ahead", 20 * year]
] as const

describe("wrong time at boot", () => {
  it.effect.each(errors.map(([what, byMs]) => ({ what, byMs })))(
    "$what: ends by itself once the server is reached, and work is done",
    ({ byMs }) =>
      Effect.gen(function* () {
        const besieged = yield* rebooted({ byMs })
        const { order } = yield* besieged.submit(1, undefined, long)
        expect((yield* besieged.ended(order.id)).state).toBe("succeeded")
        yield* besieged.device.until(() => lastPoll(besieged)?.blocked === null, "an unhindered poll")
        const now = yield* Clock.currentTimeMillis
        expect(Math.abs(deviceTime(besieged) - now)).toBeLessThan(60_000)
      })
  )
  it.effect(
    "a clock set back does not bring an expired order to life, before the server is reached or after",
    () =>
      Effect.gen(function* () {
        const wrong = { byMs: -20 * year }
        const besieged = yield* rebooted(wrong)
        const { envelope, order } = yield* besieged.submit(1, undefined, {
          issued_at_ms: present,
          expires_at_ms: present + 13 * hour,
          deadline_at_ms: present + 13 * hour
        })
        besieged.lies.set("/poll", () => ({ status: 502, headers: {}, body: new Uint8Array(0) }))
        yield* besieged.device.pass(70 * 60_000, 300_000)
        yield* besieged.pollsSay({ orders: [envelope] })
        yield* besieged.device.pass(5 * 60_000, 5_000)
        expect(besieged.runsOf(order.id)).toBe(0)
      })
  )
})

describe("a clock that jumps while the device works", () => {
  it.effect.each(errors.map(([what, byMs]) => ({ what, byMs })))("$what: changes nothing", ({ byMs }) =>
    Effect.gen(function* () {
      const wrong = { byMs: 0 }
      const besieged = yield* rebooted(wrong)
      yield* besieged.device.until(() => lastPoll(besieged)?.blocked === null, "an unhindered poll")
      wrong.byMs = byMs
      besieged.seen.length = 0
      const { order } = yield* besieged.submit(1, undefined, long)
      expect((yield* besieged.ended(order.id)).state).toBe("succeeded")
      const refused = besieged.seen.filter(({ response }) => response.status === 401)
      expect(refused).toHaveLength(0)
      yield* besieged.device.until(() => lastPoll(besieged) !== undefined, "a poll")
      expect(Math.abs(deviceTime(besieged) - (yield* Clock.currentTimeMillis))).toBeLessThan(60_000)
    })
  )
})

describe("what of time is kept", () => {
  const boot = (database: DatabaseSync, systemMs: number) =>
    Effect.gen(function* () {
      const clock = yield* Clock.Clock
      const wrong = { byMs: systemMs - clock.currentTimeMillisUnsafe() }
      const stored = SqliteLedgerOver(database).pipe(Layer.provide(SeededEntropy("test", "clock")))
      const device = yield* Effect.provide(DeviceClock, Layer.provide(ledgerDeviceClock(0), stored))
      const at = <A>(effect: Effect.Effect<A>) =>
        Effect.provideService(effect, Clock.Clock, wrongClock(clock, wrong))
      return { now: at(device.nowMs), accept: (ms: number) => at(device.accept(ms)) }
    })
  it.effect("a guess is forgotten with its boot; what a server proved is the floor for ever", () =>
    Effect.gen(function* () {
      const besieged = yield* siege
      const { database } = besieged.device
      yield* besieged.device.stop
      const first = yield* boot(database, 30 * year)
      expect(yield* first.now).toBe(30 * year)
      const second = yield* boot(database, 10 * year)
      expect(yield* second.now).toBe(10 * year)
      yield* second.accept(20 * year)
      expect(yield* second.now).toBe(20 * year)
      yield* second.accept(15 * year)
      expect(yield* second.now).toBe(20 * year)
      const third = yield* boot(database, 5 * year)
      expect(yield* third.now).toBe(20 * year)
      yield* third.accept(5 * year)
      expect(yield* third.now).toBe(20 * year)
      yield* besieged.device.start
    })
  )
})

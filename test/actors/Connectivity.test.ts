/** The way to the server: which layer is broken, since when, and who is told. */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { ConnectivityKey, HistorianKey, MainLoopKey } from "../../src/actors/ClientKeys.ts"
import { type BrokenLayer, brokenLayers } from "../../src/schemas/Connectivity.ts"
import type { RouteFailure } from "../../src/schemas/RouteFailure.ts"
import { deviceUnderTest, type TestDevice } from "./support/TestDevice.ts"

const minute = 60_000

const systemOf = (device: TestDevice) => device.system as NonNullable<TestDevice["system"]>
const linkOf = (device: TestDevice) => Effect.orDie(systemOf(device).ref(ConnectivityKey).ask("Status"))
const historyOf = (device: TestDevice) =>
  Effect.map(Effect.orDie(systemOf(device).ref(HistorianKey).ask("View")), ({ events }) =>
    [...events].reverse().map(({ kind, subject }) => `${kind} ${subject}`)
  )

/** Takes server and network away, as far as the device can see. */
const cut = (device: TestDevice, layer: TestDevice["host"]["layer"]) => {
  device.server.online = false
  device.host.layer = layer
  device.server.stir()
}

const mend = (device: TestDevice) => {
  device.server.online = true
  device.host.layer = "ok"
}

/** Layers that a request is told of by Tor or a proxy, and no look finds. */
const told: ReadonlyArray<readonly [RouteFailure, BrokenLayer]> = [
  ["proxy_refused", "proxy_refused"],
  ["onion_not_found", "onion_not_found"],
  ["onion_not_authorised", "onion_not_authorised"],
  ["onion_intro_failed", "onion_intro_failed"],
  ["onion_unexplained", "server_unreachable"],
  ["tunnel_not_ready", "tor_bootstrapping"],
  ["proxy_unreachable", "proxy_unreachable"]
]
const onlyTold: ReadonlySet<BrokenLayer> = new Set([
  "proxy_refused",
  "onion_not_found",
  "onion_not_authorised",
  "onion_intro_failed",
  "server_unreachable"
])
const seenByLooks = brokenLayers.filter((layer) => !onlyTold.has(layer))

describe("the way to the server", () => {
  it.effect.each(seenByLooks)(
    "is said to be broken at %s, told by health and history once the server is there again",
    (layer) =>
      Effect.gen(function* () {
        const device = yield* deviceUnderTest()
        yield* device.pass(2 * minute)
        expect(yield* linkOf(device)).toMatchObject({ layer: "ok", last_outage: null })
        cut(device, layer)
        yield* device.pass(3 * minute)
        expect(yield* linkOf(device)).toMatchObject({ layer, detail: "simulated" })
        const status = yield* Effect.orDie(systemOf(device).ref(MainLoopKey).ask("Status"))
        expect(status.degraded).toContainEqual({ code: layer, detail: "simulated" })
        const told = device.server.health.length
        mend(device)
        yield* device.until(() => device.server.health.length > told + 1, "health reports", 10 * minute)
        const { link } = device.server.health.at(-1) ?? { link: undefined }
        expect(link).toMatchObject({ layer: "ok", last_outage: { layer, detail: "simulated" } })
        const { from_at_ms: from = 0, until_at_ms: until = 0 } = link?.last_outage ?? {}
        expect(until - from).toBeGreaterThanOrEqual(2 * minute)
        expect(yield* historyOf(device)).toEqual(
          expect.arrayContaining([`outage ${layer}`, `reached ${layer}`])
        )
        // By the time the server hears of it, it is good again.
        yield* device.until(
          () => device.server.polls.at(-1)?.degraded.length === 0,
          "a poll without a word of it",
          5 * minute
        )
      })
  )

  it.effect("is broken at the server itself where all below is good", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      yield* device.pass(2 * minute)
      cut(device, "ok")
      yield* device.pass(3 * minute)
      const link = yield* linkOf(device)
      expect(link.layer).toBe("server_unreachable")
      expect(link.detail).toContain("simulated")
    })
  )

  it.effect.each(told)("is broken where the request was told %s", ([code, layer]) =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      yield* device.pass(2 * minute)
      device.server.code = code
      cut(device, "ok")
      yield* device.pass(3 * minute)
      const link = yield* linkOf(device)
      expect(link.layer).toBe(layer)
      expect(link.detail).toContain("simulated")
      // A look that came no farther than to the server knows less; one that found something below knows more.
      device.host.layer = "server_unreachable"
      yield* device.pass(2 * minute)
      expect((yield* linkOf(device)).layer).toBe(layer)
      device.host.layer = "no_route"
      yield* device.pass(2 * minute)
      expect((yield* linkOf(device)).layer).toBe("no_route")
      mend(device)
      yield* device.pass(5 * minute)
      expect(yield* linkOf(device)).toMatchObject({ layer: "ok", last_outage: { layer: "no_route" } })
    })
  )

  it.effect("is told of before the device is let in, too", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest({ accepted: false })
      device.server.code = "onion_not_found"
      cut(device, "ok")
      yield* device.pass(3 * minute)
      expect(yield* linkOf(device)).toMatchObject({ layer: "onion_not_found" })
      mend(device)
      device.server.code = null
      yield* device.pass(3 * minute)
      expect(yield* linkOf(device)).toMatchObject({ layer: "ok", last_outage: { layer: "onion_not_found" } })
    })
  )

  it.effect("is not looked at while the server is reached", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      yield* device.pass(5 * minute)
      const { looks } = device.host
      yield* device.pass(60 * minute, 10_000)
      expect(device.host.looks).toBe(looks)
    })
  )

  it.effect("wakes the main loop when what was broken below the server is good again", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest({ config: { sleep_maximum_ms: 3_600_000 } })
      yield* device.pass(2 * minute)
      cut(device, "no_route")
      // Long enough for the pauses between polls to have grown to the better part of an hour.
      yield* device.pass(180 * minute, 30_000)
      const before = device.server.polls.length
      mend(device)
      yield* device.pass(2 * minute)
      expect(device.server.polls.length).toBeGreaterThan(before)
      expect(yield* linkOf(device)).toMatchObject({ layer: "ok" })
    })
  )

  it.effect("is told layer by layer as an outage changes its nature", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      yield* device.pass(2 * minute)
      cut(device, "no_link")
      yield* device.pass(2 * minute)
      device.host.layer = "no_address"
      yield* device.pass(3 * minute)
      expect(yield* linkOf(device)).toMatchObject({ layer: "no_address", last_outage: { layer: "no_link" } })
      const events = (yield* historyOf(device)).filter((event) => event.startsWith("outage"))
      expect(events).toEqual(["outage no_link", "outage no_address"])
    })
  )
})

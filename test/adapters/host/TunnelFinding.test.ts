/** What a device says of its way to the server by the state of its Tor. */
import { expect, it } from "vitest"
import { tunnelFinding } from "../../../src/adapters/connectivity/TunnelFinding.ts"
import { afterEvent, noBootstrap } from "../../../src/adapters/tor/TorBootstrap.ts"
import type { TunnelState } from "../../../src/schemas/TunnelState.ts"

const stuck: TunnelState = {
  phase: "bootstrapping",
  progress: 14,
  summary: "Handshaking with a relay",
  reason: null,
  problem: null,
  clockSkewSeconds: null,
  clockDoubt: null
}

it.each<readonly [string, Partial<TunnelState>, string | null, string]>([
  ["a ready one", { phase: "ready", clockSkewSeconds: -9_000 }, null, ""],
  ["one on its way", {}, "tor_bootstrapping", "14 %, Handshaking with a relay"],
  ["its reason", { reason: "NOROUTE" }, "tor_bootstrapping", "14 %, Handshaking with a relay: NOROUTE"],
  ["one that is lost", { phase: "lost", progress: 100, summary: "Done" }, "tor_bootstrapping", "100 %, Done"],
  [
    "none",
    { phase: "lost", problem: "missing", reason: "there is no program tor" },
    "tor_failed",
    "there is no program tor"
  ],
  [
    "a clock behind",
    { clockSkewSeconds: -864_000 },
    "clock_wrong",
    "by Tor's reckoning the clock is 10 days behind"
  ],
  [
    "a clock ahead",
    { clockSkewSeconds: 7_300 },
    "clock_wrong",
    "by Tor's reckoning the clock is 2 hours ahead"
  ],
  [
    "a clock that Tor bears",
    { clockSkewSeconds: 900 },
    "tor_bootstrapping",
    "14 %, Handshaking with a relay"
  ],
  [
    "ended certificates",
    { clockDoubt: "At least one certificate expired." },
    "clock_wrong",
    "or relays are impostors: At least one certificate expired."
  ]
])("tells of %s", (_, changes, layer, detail) => {
  const found = tunnelFinding({ ...stuck, ...changes })
  expect(found).toEqual(layer === null ? null : { layer, detail })
})

it("takes tor's word for the clock, until it was set or circuits stand", () => {
  const skewed = afterEvent(noBootstrap, {
    name: "STATUS_GENERAL",
    text: "WARN CLOCK_SKEW SKEW=-864000 SOURCE=DIRSERV:10.77.0.1:24609"
  })
  expect(skewed.clockSkewSeconds).toBe(-864_000)
  const ahead = afterEvent(skewed, {
    name: "WARN",
    text: "Received a bad CERTS cell: At least one certificate expired."
  })
  expect(ahead.clockDoubt).toContain("certificate expired")
  expect(afterEvent(ahead, { name: "WARN", text: "You are running Tor as root." })).toEqual(ahead)
  const good = { clockSkewSeconds: null, clockDoubt: null }
  expect(
    afterEvent(ahead, { name: "STATUS_GENERAL", text: "WARN CLOCK_JUMPED TIME=864000 IDLE=0" })
  ).toMatchObject(good)
  expect(afterEvent(ahead, { name: "STATUS_CLIENT", text: "NOTICE CIRCUIT_ESTABLISHED" })).toMatchObject(good)
})

it("takes no complaint of the clock from a tor that gets through: it would be told at the next outage", () => {
  const ready = { ...noBootstrap, progress: 100, circuits: true }
  const complaints = [
    { name: "STATUS_GENERAL", text: "WARN CLOCK_SKEW SKEW=-864000 SOURCE=OR:10.77.0.1:24609" },
    { name: "WARN", text: "Received a bad CERTS cell: At least one certificate expired." }
  ]
  for (const complaint of complaints) {
    expect(afterEvent(ready, complaint)).toEqual(ready)
    // A clock that is set wrongly costs tor its circuits first.
    for (const lost of [
      { ...ready, circuits: false },
      { ...ready, live: false }
    ])
      expect(afterEvent(lost, complaint)).not.toEqual(lost)
  }
})

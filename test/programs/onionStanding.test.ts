/** What doctor and `postern status` say of a server whose tor has run, and has no network any more. */
import { describe, expect, it } from "@effect/vitest"
import { noBootstrap } from "../../src/adapters/tor/TorBootstrap.ts"
import { torStatus } from "../../src/adapters/tor/TorOnionServices.ts"
import { onionLines, onionNotes } from "../../src/programs/cli/OnionViews.ts"
import { onionFindings } from "../../src/programs/doctor/OnionFindings.ts"
import type { OnionServiceStatus, OnionStatus } from "../../src/schemas/OnionStatus.ts"
import type { TrustRoot } from "../../src/schemas/TrustRoot.ts"
import { onionConfig } from "../support/onions.ts"

const device: OnionServiceStatus = {
  service: "device",
  address: `http://${"a".repeat(55)}d.onion` as OnionServiceStatus["address"],
  descriptor: "published",
  uploads: 8,
  failures: 0,
  uploaded_at_ms: 1,
  introduction_points: 3,
  circuits: 0,
  authorised: 1
}
const reached = { ...noBootstrap, progress: 100, circuits: true }
const root = { servers: [{ id: "s", addresses: [device.address] }] } as unknown as TrustRoot

const statusOf = (
  bootstrap: Partial<typeof reached>,
  service: Partial<OnionServiceStatus> = {}
): OnionStatus => ({
  tor: torStatus(true, { ...reached, ...bootstrap }),
  services: [{ ...device, ...service }]
})

const states = (onion: OnionStatus) =>
  Object.fromEntries(
    onionFindings({ onion: onionConfig() }, { onion }, root, "s").map(({ id, state }) => [id, state])
  )
const notes = (onion: OnionStatus) => onionNotes({ onion, server: "s" as never }, root)
const good = { "onion.tor": "ok", "onion.published": "ok", "onion.root": "ok" }

describe("a server's way through Tor", () => {
  it("is good with circuits and introduction points, also where tor is slow to count them", () => {
    for (const status of [statusOf({}), statusOf({}, { introduction_points: null })]) {
      expect(states(status)).toEqual(good)
      expect(notes(status)).toEqual([])
    }
    expect(statusOf({ warning: "a relay was slow" }).tor.warning).toBeNull()
  })

  it.each([{ circuits: false }, { live: false }])(
    "is not good with %j, although tor once was ready",
    (lost) => {
      const status = statusOf(lost)
      expect(states(status)).toEqual({ ...good, "onion.tor": "degraded" })
      expect(notes(status)).toHaveLength(1)
      expect(onionLines({ onion: status, time_ms: 2 as never })[0]?.[1]).not.toMatch(/^ready/)
    }
  )

  it("is not good without introduction points, although a descriptor was published", () => {
    const status = statusOf({}, { introduction_points: 0 })
    expect(states(status)).toEqual({ ...good, "onion.published": "degraded" })
    expect(notes(status)).toHaveLength(1)
  })
})

/** The private Tor network itself: what stands when it is announced, and an onion service through it. */
import { existsSync } from "node:fs"
import { expect, it } from "vitest"
import { describeWith } from "../support/requires.ts"
import { sharedTorNetwork } from "../support/torNetwork.ts"

describeWith(["tor", "tor-gencert"], "the shared Tor network", () => {
  it("is one authority and three relays, all running", async () => {
    const network = await sharedTorNetwork()
    expect(Object.keys(network.pids).sort()).toEqual(["authority", "relay1", "relay2", "relay3"])
    for (const pid of Object.values(network.pids)) expect(existsSync(`/proc/${pid}`)).toBe(true)
    expect(network.relays.every(({ role }) => role === "relay")).toBe(true)
    expect(network.bridge).toBeNull()
  })
})

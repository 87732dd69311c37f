/** The private Tor network itself: what stands when it is announced, and what is left when its starter is killed. */
import { existsSync } from "node:fs"
import { expect, it } from "vitest"
import { describeWith } from "../support/requires.ts"
import { sharedTorNetwork } from "../support/torNetwork.ts"
import { NetworkStarter } from "../support/torProcesses.ts"

describeWith(["tor", "tor-gencert"], "a private Tor network", () => {
  it("is one authority and three relays, all running", async () => {
    const network = await sharedTorNetwork()
    expect(Object.keys(network.pids).sort()).toEqual(["authority", "relay1", "relay2", "relay3"])
    for (const pid of Object.values(network.pids)) expect(existsSync(`/proc/${pid}`)).toBe(true)
    expect(network.relays.every(({ role }) => role === "relay")).toBe(true)
    expect(network.bridge).toBeNull()
  })

  it("leaves neither processes nor files when its starter is killed half-way", async () => {
    const starter = new NetworkStarter()
    await starter.runs(2)
    await starter.killed()
    expect(existsSync(starter.parent)).toBe(false)
  })
})

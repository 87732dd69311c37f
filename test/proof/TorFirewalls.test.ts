/**
 * The built client behind firewalls that nobody will reconfigure, reaching a server that is an onion service alone. All
 * relays of the private network listen at port 443, on addresses of their own.
 */
import { afterAll, beforeAll, expect, it } from "vitest"
import { type Behind, Firewalls, plainPort, proxyUrl } from "../support/Firewalls.ts"
import { waitUntil } from "../support/Program.ts"
import { proofSize } from "../support/proof.ts"
import { describeWith } from "../support/requires.ts"

const relay = "203.0.113.12"
const payloadBytes = 300_000

describeWith(
  ["root", "jail", "ip", "nsenter", "nft", "python3", "tinyproxy", "tor", "tor-gencert"],
  "a device with Tor behind a firewall",
  () => {
    let firewalls: Firewalls

    beforeAll(async () => {
      firewalls = await Firewalls.open({ tor: true })
    })
    afterAll(() => firewalls?.close())

    it.concurrent("works behind NAT that lets nothing in", async () => {
      const behind = await firewalls.behind("nat", { outgoing: "" })
      await behind.enrol(firewalls.viaTor)
      expect(await behind.run(payloadBytes)).toEqual({ digestFits: true })
      const { keptIn, letOut } = await behind.figures()
      expect(letOut).toBeGreaterThan(0)
      expect(keptIn).toBe(0)
    })

    it.concurrent("works where only port 443 is open to the outside, and tries no other", async () => {
      const behind = await firewalls.behind("https-only", { outgoing: "tcp dport 443" })
      await behind.enrol([...firewalls.viaTor, "reachable_ports = [443]"])
      expect(await behind.run(payloadBytes)).toEqual({ digestFits: true })
      const before = await behind.figures()
      expect(before.keptIn).toBe(0)
      expect(await behind.knock(relay, plainPort)).toBe("silent")
      expect(await behind.knock(relay, 443)).toBe("open")
      expect((await behind.figures()).keptIn).toBeGreaterThan(0)
    })

    it.concurrent("works where an HTTP proxy is the only way out, and does not even try another", async () => {
      const behind = await firewalls.behind("proxied", { outgoing: null, proxy: [443] })
      await behind.enrol([`proxy = "${proxyUrl}"`, ...firewalls.viaTor])
      expect(await behind.run(payloadBytes)).toEqual({ digestFits: true })
      const { keptIn, letOut, toProxy } = await behind.figures()
      expect(letOut).toBe(0)
      expect(keptIn).toBe(0)
      expect(toProxy).toBeGreaterThan(0)
      const asked = behind.gate.log("proxy.log").match(/CONNECT \S+/g) ?? []
      expect(asked.length).toBeGreaterThan(0)
      for (const target of asked) expect(target).toMatch(/^CONNECT 203\.0\.113\.1[1-4]:443$/)
      expect(await behind.knock(relay, 443)).toBe("silent")
      expect((await behind.figures()).keptIn).toBeGreaterThan(0)
    })

    /** A download with Tor in the middle of which something happens; how long after that the receipt was there. */
    const disturbed = async (name: string, disturb: (behind: Behind) => Promise<void>): Promise<void> => {
      const line = { rate: 400_000, queueBytes: 50_000 }
      const behind = await firewalls.behind(name, { outgoing: "", line })
      await behind.enrol(firewalls.viaTor)
      const before = await behind.came()
      const happening = async () => {
        const half = async () => (await behind.came()) - before > 600_000
        await waitUntil("half of the payload", half, 280_000)
        await disturb(behind)
        await behind.link?.set({ rate: null })
        return performance.now()
      }
      const [ran, happenedMs] = await Promise.all([behind.run(1_000_000, 280_000), happening()])
      expect(ran).toEqual({ digestFits: true })
      const seconds = ((performance.now() - happenedMs) / 1000).toFixed(1)
      process.stdout.write(`${name} with Tor: receipt ${seconds} s after it\n`)
    }

    it.concurrent("goes on with a download after its address has changed in the middle of it", () =>
      disturbed("moved", (behind) => behind.move()))

    // Tor itself must find out that its connections are dead, which takes it one to two minutes.
    if (proofSize === "long")
      it.concurrent("goes on with a download after the gate forgot all connections", () =>
        disturbed("renumbered", (behind) => behind.renumber()))

    it.concurrent("works over a line with a delay of 300 ms that loses 5 % of its packets", async () => {
      const behind = await firewalls.behind("far", { outgoing: "", line: { delayMs: 300, loss: 0.05 } })
      await behind.enrol(firewalls.viaTor)
      expect(await behind.run(50_000, 280_000)).toEqual({ digestFits: true })
      const figures = (await behind.link?.figures()) ?? []
      expect(figures.map(({ lost, packets }) => lost > 0 && packets > 50)).toEqual([true, true])
    })
  }
)

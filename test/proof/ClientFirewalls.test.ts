/** The built client behind firewalls that nobody will reconfigure. Each device, gate and line is one of its own. */
import { afterAll, beforeAll, expect, it } from "vitest"
import { Firewalls, inner, knockFrom, plainPort, proxyUrl, worldAddress } from "../support/Firewalls.ts"
import { waitUntil } from "../support/Program.ts"
import { describeWith } from "../support/requires.ts"

const listen = (port: number) =>
  `python3 -c 'import socket, time; open = socket.create_server(("0.0.0.0", ${port})); time.sleep(600)'`

describeWith(
  ["root", "jail", "ip", "nsenter", "nft", "openssl", "python3", "tinyproxy"],
  "a device behind a firewall",
  () => {
    let firewalls: Firewalls

    beforeAll(async () => {
      firewalls = await Firewalls.open()
    })
    afterAll(() => firewalls?.close())

    it.concurrent("works behind NAT that lets nothing in", async () => {
      const behind = await firewalls.behind("nat", { outgoing: "" })
      await behind.enrol()
      expect(await behind.run(1_000_000)).toEqual({ digestFits: true })
      // The world sees the gate alone, and cannot reach what listens behind it.
      // Between two of its polls there may be no connection for a moment.
      const seen = await waitUntil("the device's connection", async () => {
        const { stdout } = await firewalls.world.run("ss -Htn state established sport = 443")
        return stdout.includes(`${behind.outside}:`) && stdout
      })
      expect(seen).not.toContain("10.0.0.")
      await behind.device.leaveRunning(listen(7000), "listen.log")
      await waitUntil("a listener", async () => (await behind.knock("127.0.0.1", 7000)) === "open")
      await firewalls.world.run(`ip route add 10.0.0.0/24 via ${behind.outside}`)
      expect((await behind.figures()).keptOut).toBe(0)
      expect(await knockFrom(firewalls.world, inner.device, 7000)).toBe("silent")
      const { keptIn, keptOut, letOut } = await behind.figures()
      expect(keptOut).toBeGreaterThan(0)
      expect(letOut).toBeGreaterThan(0)
      expect(keptIn).toBe(0)
    })

    it.concurrent("works where only port 443 is open to the outside", async () => {
      const behind = await firewalls.behind("https-only", { outgoing: "tcp dport 443" })
      await behind.enrol()
      expect(await behind.run(1_000_000)).toEqual({ digestFits: true })
      const before = await behind.figures()
      expect(await behind.knock(worldAddress, plainPort)).toBe("silent")
      expect(await behind.knock(worldAddress, 443)).toBe("open")
      const after = await behind.figures()
      expect(after.keptIn).toBeGreaterThan(before.keptIn)
      expect(after.letOut).toBeGreaterThan(before.letOut)
    })

    it.concurrent("works where an HTTP proxy is the only way out, and does not even try another", async () => {
      const behind = await firewalls.behind("proxied", { outgoing: null, proxy: [443] })
      await behind.enrol([`proxy = "${proxyUrl}"`])
      expect(await behind.run(1_000_000)).toEqual({ digestFits: true })
      const { keptIn, letOut, toProxy } = await behind.figures()
      expect(letOut).toBe(0)
      expect(keptIn).toBe(0)
      expect(toProxy).toBeGreaterThan(0)
      expect(behind.gate.log("proxy.log")).toContain(`CONNECT ${worldAddress}:443`)
      expect(await behind.knock(worldAddress, 443)).toBe("silent")
      expect((await behind.figures()).keptIn).toBeGreaterThan(0)
    })

    it.concurrent("goes on with a download after its address has changed in the middle of it", async () => {
      const behind = await firewalls.behind("moving", {
        outgoing: "",
        line: { rate: 800_000, queueBytes: 50_000 }
      })
      await behind.enrol()
      const cameBefore = await behind.came()
      const move = async () => {
        const half = async () => (await behind.came()) - cameBefore > 800_000
        await waitUntil("half of the payload", half, 180_000)
        await behind.move()
        await behind.link?.set({ rate: null })
      }
      const [ran] = await Promise.all([behind.run(1_600_000), move()])
      expect(ran).toEqual({ digestFits: true })
      // What had come was not fetched again.
      expect((await behind.came()) - cameBefore).toBeLessThan(2_200_000)
    })

    it.concurrent("works over a line with a delay of 300 ms that loses 5 % of its packets", async () => {
      const behind = await firewalls.behind("far", { outgoing: "", line: { delayMs: 300, loss: 0.05 } })
      await behind.enrol()
      expect(await behind.run(50_000)).toEqual({ digestFits: true })
      const figures = (await behind.link?.figures()) ?? []
      expect(figures.map(({ lost, packets }) => lost > 0 && packets > 50)).toEqual([true, true])
    })
  }
)

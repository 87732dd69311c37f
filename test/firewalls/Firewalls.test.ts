/** The built client behind firewalls that nobody will reconfigure. */
import { afterAll, beforeAll, expect, it } from "vitest"
import { type Behind, Firewalls, inner, knockFrom, plainPort, worldAddress } from "../support/Firewalls.ts"
import { waitUntil } from "../support/Program.ts"
import { describeWith } from "../support/requires.ts"

/** Some connection that the device's firewall must not care about. */
const listen = (port: number) =>
  `python3 -c 'import socket,time; listener = socket.create_server(("0.0.0.0", ${port})); time.sleep(600)'`

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
      const seen = await firewalls.world.run("ss -Htn state established sport = 443")
      expect(seen.stdout).toContain("198.18.1.2:")
      expect(seen.stdout).not.toContain("10.0.0.")
      await behind.device.leaveRunning(listen(7000), "listen.log")
      await waitUntil("a listener", async () => (await behind.knock("127.0.0.1", 7000)) === "open")
      await firewalls.world.run("ip route add 10.0.0.0/24 via 198.18.1.2")
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

    it.concurrent("goes on with a download after its address has changed in the middle of it", async () => {
      const line = { rate: 1_000_000, queueBytes: 50_000 }
      const behind = await firewalls.behind("moving", { outgoing: "", line })
      await behind.enrol()
      await behind.link?.set({ rate: 800_000 })
      let came = 0
      const comes = async (): Promise<number> => {
        const [world] = (await behind.link?.figures()) ?? []
        came += world?.bytes ?? 0
        return came
      }
      await comes()
      came = 0
      const running = behind.run(2_000_000)
      await waitUntil("half of the payload", async () => (await comes()) > 1_000_000)
      const moved = await behind.device.run(
        `ip address del ${inner.device}/24 dev eth0 && ip address add ${inner.later}/24 dev eth0 &&
         ip route replace default via ${inner.gate}`
      )
      expect(moved).toMatchObject({ code: 0, stderr: "" })
      await behind.link?.set({ rate: null })
      const began = performance.now()
      expect(await running).toEqual({ digestFits: true })
      process.stdout.write(
        `moved: the receipt was there after ${performance.now() - began} ms\n${behind.log()}`
      )
      // What had come was not fetched again.
      expect(await comes()).toBeLessThan(2_700_000)
    })

    it.concurrent("works over a line with a delay of 300 ms that loses 5 % of its packets", async () => {
      const line = { delayMs: 300, loss: 0.05 }
      const behind: Behind = await firewalls.behind("far", { outgoing: "", line })
      await behind.enrol()
      expect(await behind.run(200_000)).toEqual({ digestFits: true })
      const figures = (await behind.link?.figures()) ?? []
      expect(figures.map(({ lost, packets }) => lost > 0 && packets > 100)).toEqual([true, true])
    })
  }
)

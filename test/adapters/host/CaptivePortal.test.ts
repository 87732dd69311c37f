/** A network whose gateway answers in everybody's place, and what a device makes of it; the real thing, by nftables. */
import { afterAll, beforeAll, expect, it } from "vitest"
import type { TunnelState } from "../../../src/schemas/TunnelState.ts"
import { describeWith } from "../../support/requires.ts"
import { type WebAnswer, World } from "./World.ts"

const patienceMs = 120_000
const json: WebAnswer = { status: 200, headers: { "content-type": "application/json" } }
const onion = `http://${"a".repeat(55)}d.onion`

const ready: TunnelState = {
  phase: "ready",
  progress: 100,
  summary: "Done",
  reason: null,
  problem: null,
  clockSkewSeconds: null
}

/** Takes every connection to a port over, as the gateway of a hotel does. */
const takeOver = (port: number, to: number) =>
  `nft 'add table ip hotel; add chain ip hotel in { type nat hook prerouting priority dstnat; }; add rule ip hotel in iifname "v0" tcp dport ${port} redirect to :${to}'`
const letGo = "nft delete table ip hotel"

describeWith(
  ["root", "ip", "unshare", "mount", "nft", "openssl", "faketime"],
  "a network that wants a login first",
  () => {
    const world = new World()
    const server = "http://server.test:8470"
    const secure = "https://server.test:8443"

    beforeAll(async () => {
      await world.begin()
      await world.device(
        "ip link set v1 up; ip address add 10.9.0.2/24 dev v1; ip route add default via 10.9.0.1"
      )
      await world.answerNames()
      await world.web("10.8.0.1", 8470, json)
      await world.web("10.9.0.1", 8081, { status: 302, headers: { location: "http://login.hotel.test/" } })
      await world.web("10.9.0.1", 8082, { status: 511 })
      await world.web("10.9.0.1", 8083, {
        status: 200,
        headers: { "content-type": "text/html; charset=utf-8" }
      })
      await world.web("10.9.0.1", 8084, { status: 301, headers: { location: "https://server.test:8470/x" } })
      await world.web("10.8.0.1", 8085, { status: 204 })
    }, patienceMs)
    afterAll(() => world.end(), patienceMs)

    it("shows in what comes from the server's own address", { timeout: patienceMs }, async () => {
      expect(await world.look({ servers: [server] })).toEqual({ layer: "ok", detail: "" })
      const seen: Array<string> = []
      for (const portal of [8081, 8082, 8083, 8084]) {
        await world.run(takeOver(8470, portal))
        const { detail, layer } = await world.look({ servers: [server] })
        seen.push(`${layer}: ${detail}`)
        await world.run(letGo)
      }
      expect(seen).toEqual([
        "captive_portal: server.test:8470 answers with a redirect to http://login.hotel.test/",
        "captive_portal: server.test:8470 answers that a login is required (511)",
        "captive_portal: server.test:8470 answers with a web page",
        // From plain HTTP to TLS at the same host: a gateway of the server's own.
        "ok: "
      ])
    })

    it("shows in a certificate for another name", { timeout: patienceMs }, async () => {
      const own = await world.certificate("server.test")
      await world.web("10.8.0.1", 8443, { ...json, tls: own })
      await world.web("10.9.0.1", 8444, { status: 302, tls: await world.certificate("login.hotel.test") })
      const trusting = `NODE_EXTRA_CA_CERTS=${own}.pem`
      expect(await world.look({ servers: [secure] }, trusting)).toEqual({ layer: "ok", detail: "" })
      expect(await world.look({ servers: [secure] })).toEqual({
        layer: "server_unreachable",
        detail: "the certificate of server.test:8443 is not accepted: DEPTH_ZERO_SELF_SIGNED_CERT"
      })
      await world.run(takeOver(8443, 8444))
      expect(await world.look({ servers: [secure] }, trusting)).toEqual({
        layer: "captive_portal",
        detail: "server.test:8443 answers with a certificate for DNS:login.hotel.test"
      })
      await world.run(letGo)
    })

    it("is told from a clock that is behind", { timeout: patienceMs }, async () => {
      const later = await world.certificate("server.test", 10)
      await world.web("10.8.0.1", 8445, { ...json, tls: later })
      const found = await world.look(
        { servers: ["https://server.test:8445"] },
        `NODE_EXTRA_CA_CERTS=${later}.pem`
      )
      expect(found).toMatchObject({ layer: "clock_wrong", detail: expect.stringContaining("is valid from") })
    })

    it("shows at the configured page, where nothing else can be asked", { timeout: patienceMs }, async () => {
      const page = "http://server.test:8085/empty"
      const asked = {
        servers: [onion],
        captivePortalUrl: page,
        tor: { mode: "auto", entries: [], state: ready }
      } as const
      expect(await world.look(asked)).toEqual({ layer: "ok", detail: "" })
      await world.run(takeOver(8085, 8081))
      expect(await world.look(asked)).toEqual({
        layer: "captive_portal",
        detail: "server.test:8085 answers with a redirect to http://login.hotel.test/, where 204 was expected"
      })
      // A server that is reached is proof enough.
      expect(await world.look({ servers: [server], captivePortalUrl: page })).toMatchObject({ layer: "ok" })
      await world.run(letGo)
    })

    it("finds a proxy that nobody answers at", { timeout: patienceMs }, async () => {
      const asked = { servers: ["https://elsewhere.test"], proxy: "10.8.0.9:3128" }
      expect(await world.look(asked)).toMatchObject({
        layer: "proxy_unreachable",
        detail: expect.stringContaining("10.8.0.9:3128")
      })
      await world.listen("10.8.0.9", 3128)
      expect(await world.look(asked)).toMatchObject({ layer: "ok" })
    })

    it("sends nothing at all where everything is to go through Tor", { timeout: patienceMs }, async () => {
      const count =
        "nft 'add table inet seen; add chain inet seen out { type filter hook output priority 0; }; add rule inet seen out oifname != lo meta l4proto { tcp, udp } counter'"
      await world.device(count.replaceAll("'", '"'))
      const tor = {
        mode: "always",
        entries: [],
        state: { ...ready, phase: "lost", summary: "Lost" }
      } as const
      const asked = {
        servers: [server, secure, onion],
        references: ["reference.test:443"],
        captivePortalUrl: "http://server.test:8085/empty",
        proxy: "proxy.test:3128",
        tor
      }
      expect(await world.look(asked)).toEqual({ layer: "tor_bootstrapping", detail: "100 %, Lost" })
      expect(await world.device("nft list table inet seen")).toContain("packets 0 bytes 0")
      // The same look may speak where it is allowed to.
      await world.look({ ...asked, tor: { ...tor, mode: "auto" } })
      expect(await world.device("nft list table inet seen")).not.toContain("packets 0 bytes 0")
    })
  }
)

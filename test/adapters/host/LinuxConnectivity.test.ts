/** Each layer of the network failing in turn, on the real thing. */
import { afterAll, beforeAll, expect, it } from "vitest"
import { targetOfHost, targetOfOrigin } from "../../../src/adapters/connectivity/Targets.ts"
import type { LinkFinding } from "../../../src/schemas/Connectivity.ts"
import { waitUntil } from "../../support/Program.ts"
import { describeWith } from "../../support/requires.ts"
import { World } from "./World.ts"

const patienceMs = 120_000
const json = { status: 200, headers: { "content-type": "application/json" } }

it("takes hosts and origins as they are written", () => {
  expect(targetOfOrigin("https://postern.example")).toEqual({ host: "postern.example", port: 443 })
  expect(targetOfOrigin("http://[::1]:8470")).toEqual({ host: "::1", port: 8470 })
  expect(targetOfHost("[2001:db8::5]:53")).toEqual({ host: "2001:db8::5", port: 53 })
  expect(targetOfHost("192.0.2.9:443")).toEqual({ host: "192.0.2.9", port: 443 })
  expect(targetOfOrigin("nothing")).toBeUndefined()
})

describeWith(["root", "ip", "unshare", "mount"], "the network below a device", () => {
  const world = new World()
  const look = (references: string, ...servers: ReadonlyArray<string>): Promise<LinkFinding> =>
    world.look({ servers, references: references === "" ? [] : [references] })
  const server = "http://server.test:8470"
  const reference = "10.8.0.9:443"

  beforeAll(() => world.begin(), patienceMs)
  afterAll(() => world.end(), patienceMs)

  // One after the other: each test mends what the one before it found broken.
  it(
    "is broken at each layer in turn, from the cable to the server",
    async () => {
      expect(await look(reference, server)).toMatchObject({ layer: "no_link", detail: "v1 is down" })

      await world.device("ip link set v1 up")
      // The system takes a moment until it sees the cable.
      const carried = async () => (await look(reference, server)).layer !== "no_link"
      await waitUntil("the link", carried, patienceMs)
      expect((await look(reference, server)).layer).toBe("no_address")

      await world.device("ip address add 10.9.0.2/24 dev v1")
      expect(await look("", server)).toMatchObject({ layer: "no_route", detail: "there is no default route" })
      expect(await look(reference, server)).toMatchObject({
        layer: "no_route",
        detail: expect.stringContaining("nor one to 10.8.0.9")
      })

      await world.device("ip route add default via 10.9.0.1")
      expect(await look(reference, server)).toMatchObject({
        layer: "no_name_resolution",
        detail: "not resolved: server.test"
      })

      await world.answerNames()
      expect(await look(reference, server)).toMatchObject({
        layer: "no_reference_host",
        detail: expect.stringContaining(reference)
      })

      await world.listen("10.8.0.9", 443)
      expect(await look(reference, server)).toMatchObject({
        layer: "server_unreachable",
        detail: expect.stringContaining("server.test:8470")
      })

      await world.web("10.8.0.1", 8470, json)
      expect(await look(reference, server)).toEqual({ layer: "ok", detail: "" })
    },
    patienceMs
  )

  it(
    "is good in a closed network: a server on the wire, no gateway, no names, no reference hosts",
    async () => {
      await world.device("ip route del default")
      await world.web("10.9.0.1", 8470, json)
      // Names count as they are resolved: here by the one server there is, for an address that no way leads to.
      expect(await look("", server)).toMatchObject({
        layer: "no_route",
        detail: expect.stringContaining("10.8.0.1")
      })
      await world.device("ip route add 10.8.0.1 via 10.9.0.1")
      expect(await look("", server)).toMatchObject({ layer: "ok" })
      expect(await look("", "http://10.9.0.1:8470")).toEqual({ layer: "ok", detail: "" })
      // Of several addresses of a server one is enough.
      expect(await look("", "http://10.9.0.1:1", "http://10.9.0.1:8470")).toMatchObject({ layer: "ok" })
    },
    patienceMs
  )

  it(
    "is not asked for where the server is on the same machine",
    async () => {
      await world.device("ip link set v1 down")
      expect((await look("", "http://127.0.0.1:8470")).layer).toBe("server_unreachable")
      expect((await look("", "http://10.9.0.1:8470")).layer).toBe("no_link")
    },
    patienceMs
  )
})

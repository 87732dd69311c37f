/**
 * What leaves a device on which everything goes through Tor while Tor finds no way: its tries to reach Tor's network, and
 * nothing else. (That nothing else leaves while Tor works is a proof: test/proof/TorLeak.test.ts.)
 */
import { copyFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { afterAll, beforeAll, expect, it } from "vitest"
import { destinations, watchCable } from "../support/Cable.ts"
import { Machine } from "../support/Machines.ts"
import { waitUntil } from "../support/Program.ts"
import { describeWith } from "../support/requires.ts"

const address = "203.0.113.2"
const authority = "203.0.113.11"
const nameServer = "203.0.113.53"
const elsewhere = "203.0.113.99"

const configuration = `
server = "https://clear.example"
reference_hosts = ["reference.example:443", "${elsewhere}:443"]
captive_portal_url = "http://portal.example/empty"
[tor]
mode = "always"
options = [
  "TestingTorNetwork 1",
  "DirAuthority auth0 orport=443 no-v2 v3ident=${"A".repeat(40)} ${authority}:80 ${"B".repeat(40)}"
]
`

describeWith(
  ["root", "ip", "nsenter", "python3", "tcpdump", "tor"],
  "a device that Tor has no way for",
  () => {
    const machines: Array<Machine> = []
    let device: Machine

    const done = async (machine: Machine, script: string): Promise<void> => {
      const ended = await machine.run(script)
      if (ended.code !== 0) throw new Error(`${script}: ${ended.code}\n${ended.stdout}${ended.stderr}`)
    }

    beforeAll(async () => {
      const world = await Machine.start("world")
      machines.push(world)
      device = await Machine.start("quiet")
      machines.push(device)
      Machine.connect(world, "203.0.113.1", device, address)
      for (const other of [authority, nameServer, elsewhere])
        await done(world, `ip address add ${other}/32 dev lo`)
      copyFileSync(join(import.meta.dirname, "../../dist/client.js"), join(device.home, "client.js"))
      writeFileSync(join(device.home, "client.toml"), configuration)
      writeFileSync(
        join(device.home, "resolv.conf"),
        `nameserver ${nameServer}\noptions timeout:1 attempts:1\n`
      )
      await done(device, "cp resolv.conf /etc/resolv.conf && ip route add default via 203.0.113.1")
      await watchCable(device)
    })
    afterAll(async () => {
      await Promise.all(machines.map((machine) => machine.stop()))
    })

    it("lets its tor's tries out, and nothing else", async () => {
      await device.leaveRunning("node client.js --config client.toml", "client.log")
      const words = () => device.log("client.log")
      const isTold = () => words().includes("the way to the server is broken")
      await waitUntil("the failure to be told", isTold, 120_000, words)
      const sent = await waitUntil("its tor's tries", async () => {
        const seen = await destinations(device, address)
        return seen.length > 0 && seen
      })
      expect(sent.filter((target) => !target.startsWith(`${authority}.`))).toEqual([])
    })

    it("would have been seen to send anything else", async () => {
      const ask = "import socket\ntry: socket.getaddrinfo('clear.example', 443)\nexcept OSError: pass"
      await done(device, `python3 -c "${ask}"`)
      await waitUntil("the question", async () =>
        (await destinations(device, address)).includes(`${nameServer}.53`)
      )
    })
  }
)

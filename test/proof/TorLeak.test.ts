/**
 * What leaves a device on which everything goes through Tor, seen on its only cable: the built client starts, enrols, works,
 * loses tor and the network, is looked at by doctor, and recovers. Its root and its configuration name addresses and
 * hosts by name and by number, and there is a name server to ask.
 */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type Behind, Firewalls, inner } from "../support/Firewalls.ts"
import type { Machine } from "../support/Machines.ts"
import { waitUntil } from "../support/Program.ts"
import { requires } from "../support/requires.ts"

const relay = /^203\.0\.113\.1[1-4]\./
const patienceMs = 120_000

const done = async (machine: Machine, script: string): Promise<string> => {
  const ended = await machine.run(script)
  if (ended.code !== 0) throw new Error(`${script}: ${ended.code}\n${ended.stdout}${ended.stderr}`)
  return ended.stdout
}

/** Everything that the device has sent so far, but the wire's own housekeeping, as tcpdump tells it. */
const sent = async (device: Machine): Promise<ReadonlyArray<string>> => {
  // What lies in the kernel's buffer is written when there is something after it.
  const filter = "not arp and not icmp6 and not igmp"
  const text = await done(device, `tcpdump -nn -r cable.pcap '${filter}' 2>/dev/null`)
  return text
    .split("\n")
    .filter((line) => line.includes(` ${inner.device}.`) && line.includes(`IP ${inner.device}.`))
}

/** Where a packet goes: `address.port`. */
const destination = (line: string): string => / > ([0-9.]+)[: ]/.exec(line)?.[1] ?? line

const strangers = (lines: ReadonlyArray<string>): ReadonlyArray<string> =>
  lines.filter((line) => !relay.test(destination(line)))

const settings = [
  'server = "https://203.0.113.98"',
  'reference_hosts = ["reference.example:443", "203.0.113.99:443"]',
  'captive_portal_url = "http://portal.example/empty"',
  "long_poll_ms = 1000"
]

const isPossible = requires(
  ...["root", "jail", "ip", "nsenter", "nft", "python3", "tcpdump", "tor", "tor-gencert"]
)

describe.skipIf(!isPossible)("a device on which everything goes through Tor", () => {
  let firewalls: Firewalls
  let behind: Behind

  beforeAll(async () => {
    firewalls = await Firewalls.open({ tor: true, addresses: ["https://clear.example"] })
    behind = await firewalls.behind("quiet", { outgoing: "" })
    const { device } = behind
    writeFileSync(join(device.home, "resolv.conf"), "nameserver 203.0.113.53\noptions timeout:1 attempts:1\n")
    await done(device, "cp resolv.conf /etc/resolv.conf")
    await device.leaveRunning("tcpdump -i eth0 -n -U -Z root -w cable.pcap", "tcpdump.log")
    await waitUntil("tcpdump", () => device.log("tcpdump.log").includes("listening on"))
  })
  afterAll(() => firewalls?.close())

  it("sends packets to Tor's relays alone, and asks no name server for anything", async () => {
    const { device, gate } = behind
    const words = () => device.log("client.log")
    await behind.enrol([...settings, ...firewalls.viaTor])
    await behind.run(1_000)

    // The network goes, and tor with it.
    await done(gate, "nft add chain ip gate hole '{ type filter hook forward priority -10; policy drop; }'")
    await done(device, "kill -9 $(cat /var/lib/postern/tor/pid)")
    await waitUntil(
      "the failure",
      () => words().includes("the way to the server is broken"),
      patienceMs,
      words
    )
    const looking = device.run("node client.js --config client.toml doctor --json", 180_000)
    await done(gate, "nft delete chain ip gate hole")
    await behind.run(1_000)
    const doctor = await looking
    expect(doctor.stdout).toContain('"id":"server.reached"')
    expect(doctor.stdout).toContain("not needed: names go to Tor or to the proxy")

    const lines = await sent(device)
    expect(lines.length).toBeGreaterThan(50)
    expect(strangers(lines)).toEqual([])
  }, 600_000)

  it("would have been seen to send anything else", async () => {
    const { device } = behind
    await device.run("python3 -c 'import socket; socket.getaddrinfo(\"clear.example\", 443)'")
    await behind.knock("203.0.113.99", 443)
    await waitUntil("the packets", async () => {
      const seen = strangers(await sent(device)).map(destination)
      return seen.includes("203.0.113.53.53") && seen.includes("203.0.113.99.443")
    })
  })
})

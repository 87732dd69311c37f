/**
 * Relays that lie apart: each of a private network's relays in a network namespace of its own, joined by a switch that
 * takes its time with every packet. Server and device stay where this process is, which must be a namespace of its own
 * too; what they say to each other's tor crosses the switch at every hop.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import type { PrivateTorNetworkOptions } from "../../src/adapters/tor/lab/PrivateTorNetwork.ts"
import { type Link, type LinkEnd, startLink } from "../../test/support/Link.ts"

const nicknames = ["authority", "relay1", "relay2", "relay3"] as const

/** From a device to its server a packet is carried seven times: three relays of each side, and the one where they meet. */
const hops = 7

export interface Scattered {
  /** For the network whose relays lie apart. */
  readonly options: PrivateTorNetworkOptions
  /** How long a way from the device to the server and back takes at least. */
  readonly setRoundTrip: (ms: number) => Promise<void>
}

/** A network namespace that lasts as long as its holder. */
const holdNamespace = async (): Promise<ChildProcess & { readonly pid: number }> => {
  const script = "ip link set lo up && echo ready && exec cat"
  const child = spawn("unshare", ["--net", "sh", "-c", script], { stdio: ["pipe", "pipe", "inherit"] })
  await Promise.race([
    once(child.stdout, "data"),
    once(child, "exit").then(() => Promise.reject(new Error("no network namespace could be made")))
  ])
  return child as unknown as ChildProcess & { readonly pid: number }
}

/** Starts a tor in the namespace of its nickname, which is the name of the folder that its torrc lies in. */
const enterScript = (folder: string): string => `for word; do
  case "$word" in */torrc) nickname=$(basename "$(dirname "$word")") ;; esac
done
exec nsenter --net="/proc/$(cat "${folder}/$nickname.pid")/ns/net" "$@"
`

/** Makes the places of the relays and the switch between them, lends them to `work`, and removes them. */
export const withScatteredRelays = async <A>(
  folder: string,
  work: (scattered: Scattered) => Promise<A>
): Promise<A> => {
  const holders: Array<ChildProcess> = []
  let link: Link | undefined
  try {
    spawnSync("ip", ["link", "set", "lo", "up"])
    const ends: Array<LinkEnd> = [{ name: "home", address: "10.77.0.254/24" }]
    for (const [index, nickname] of nicknames.entries()) {
      const holder = await holdNamespace()
      holders.push(holder)
      writeFileSync(join(folder, `${nickname}.pid`), `${holder.pid}`)
      ends.push({
        name: nickname,
        address: `10.77.0.${index + 1}/24`,
        namespace: `/proc/${holder.pid}/ns/net`
      })
    }
    const enter = join(folder, "enter.sh")
    writeFileSync(enter, enterScript(folder))
    const started = await startLink({ ends })
    link = started
    return await work({
      options: {
        via: ["sh", enter],
        addresses: nicknames.map((_, index) => `10.77.0.${index + 1}`),
        orPort: 443,
        relays: nicknames.length - 1
      },
      setRoundTrip: (ms) => started.set({ delayMs: ms / (2 * hops) })
    })
  } finally {
    await link?.stop()
    for (const holder of holders) holder.stdin?.end()
  }
}

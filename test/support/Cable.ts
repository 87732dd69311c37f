/** What leaves a machine that is none by its cable. */
import type { Machine } from "./Machines.ts"
import { waitUntil } from "./Program.ts"

/** Begins to write down what passes the machine's cable. */
export const watchCable = async (machine: Machine): Promise<void> => {
  await machine.leaveRunning("tcpdump -i eth0 -n -U -Z root -w cable.pcap", "tcpdump.log")
  await waitUntil("tcpdump", () => machine.log("tcpdump.log").includes("listening on"))
}

/**
 * Where the packets went that the machine, by its address, has sent so far: `address.port` of each, without the wire's own
 * housekeeping.
 */
export const destinations = async (machine: Machine, address: string): Promise<ReadonlyArray<string>> => {
  const read = await machine.run("tcpdump -nn -r cable.pcap 'not arp and not icmp6 and not igmp'")
  // The last packet may be half written; all before it were read.
  if (read.code !== 0 && !read.stderr.includes("truncated dump file"))
    throw new Error(`tcpdump: ${read.stderr}`)
  const lines = read.stdout.split("\n").filter((line) => line.includes(`IP ${address}`))
  return lines.map((line) => / > ([0-9.]+)[: ]/.exec(line)?.[1] ?? line)
}

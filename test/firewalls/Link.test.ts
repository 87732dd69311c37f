import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { afterAll, afterEach, beforeAll, expect, it } from "vitest"
import { type Link, type LinkOptions, startLink } from "../support/Link.ts"
import { Machine } from "../support/Machines.ts"
import { waitUntil } from "../support/Program.ts"
import { describeWith } from "../support/requires.ts"

/** Sends back every datagram, and swallows every byte of a connection, then says how many there were. */
const peer = `
import socket, threading
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(("0.0.0.0", 7000))
def echo():
    while True:
        words, sender = datagrams.recvfrom(2000)
        try: datagrams.sendto(words, sender)
        except OSError: pass # The link was taken away meanwhile.
threading.Thread(target=echo, daemon=True).start()
listener = socket.create_server(("0.0.0.0", 7001))
print("listens", flush=True)
while True:
    connection, _ = listener.accept()
    count = 0
    while True:
        words = connection.recv(1 << 18)
        if not words: break
        count += len(words)
    connection.sendall(str(count).encode())
    connection.close()
`

/** pings.py HOST COUNT GAP_S PATIENCE_S: the times of the answers in ms, one a line. */
const pings = `
import socket, sys, threading, time
host, count, gap, patience = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
line = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
line.connect((host, 7000))
line.settimeout(patience)
def send():
    for _ in range(count):
        line.send(str(time.monotonic()).encode())
        time.sleep(gap)
sender = threading.Thread(target=send, daemon=True)
sender.start()
for _ in range(count):
    try: sent = line.recv(100)
    except socket.timeout: break
    print((time.monotonic() - float(sent)) * 1000)
sender.join()
`

/** push.py HOST BYTES: seconds until the peer has said that all have come. */
const push = `
import socket, sys, time
line = socket.create_connection((sys.argv[1], 7001))
block, left, begun = b"x" * (1 << 18), int(sys.argv[2]), time.monotonic()
while left > 0:
    line.sendall(block[:left])
    left -= len(block)
line.shutdown(socket.SHUT_WR)
assert line.recv(100) == sys.argv[2].encode()
print(time.monotonic() - begun)
`

const median = (values: ReadonlyArray<number>): number =>
  [...values].sort((left, right) => left - right)[Math.floor(values.length / 2)] ?? Number.NaN

describeWith(["root", "ip", "nsenter", "python3"], "the link between namespaces", () => {
  let left: Machine
  let right: Machine
  let third: Machine
  let link: Link | undefined

  beforeAll(async () => {
    left = await Machine.start("left")
    right = await Machine.start("right")
    third = await Machine.start("third")
    const scripts = { "peer.py": peer, "pings.py": pings, "push.py": push }
    for (const machine of [left, right, third])
      for (const [name, text] of Object.entries(scripts)) writeFileSync(join(machine.home, name), text)
    for (const machine of [right, third]) {
      await machine.leaveRunning("python3 peer.py", "peer.log")
      await waitUntil("the peer", () => machine.log("peer.log").includes("listens"))
    }
  })
  afterAll(async () => {
    await Promise.all([left, right, third].map((machine) => machine?.stop()))
  })
  afterEach(async () => {
    await link?.stop()
    link = undefined
  })

  const connect = async (options: Omit<LinkOptions, "ends">): Promise<Link> => {
    link = await startLink({
      ...options,
      ends: [
        { namespace: left.namespace, address: "192.0.2.1/24" },
        { namespace: right.namespace, address: "192.0.2.2/24" }
      ]
    })
    return link
  }

  const printed = async (machine: Machine, command: string): Promise<ReadonlyArray<number>> => {
    const ended = await machine.run(`python3 ${command}`)
    if (ended.code !== 0) throw new Error(`${command}: ${ended.stderr}`)
    return ended.stdout.split("\n").filter(Boolean).map(Number)
  }

  it("delays packets by what it is told, and little more, and can be told otherwise while it runs", async () => {
    const made = await connect({ delayMs: 40 })
    const slow = await printed(left, "pings.py 192.0.2.2 100 0.002 10")
    const [outward] = await made.figures()
    await made.set({ delayMs: 0 })
    const quick = await printed(left, "pings.py 192.0.2.2 100 0.002 10")
    process.stdout.write(
      `link: 80 ms round trip measured ${median(slow).toFixed(2)} ms, ` +
        `0 ms measured ${median(quick).toFixed(2)} ms; late by ${outward?.lateMeanUs.toFixed(0)} µs on average, ` +
        `${outward?.lateMostUs.toFixed(0)} µs at most\n`
    )
    expect(slow.length).toBe(100)
    expect(Math.min(...slow)).toBeGreaterThanOrEqual(80)
    expect(quick.length).toBe(100)
    expect(median(quick)).toBeLessThan(40)
  })

  it("spreads the delay without letting packets overtake each other", async () => {
    await connect({ delayMs: 5, jitterMs: 50 })
    const times = await printed(left, "pings.py 192.0.2.2 100 0.001 10")
    expect(Math.min(...times)).toBeGreaterThanOrEqual(10)
    expect(Math.max(...times)).toBeGreaterThan(40)
    expect(times.length).toBe(100)
  })

  it("loses the share of packets it is told, the same ones for the same seed", async () => {
    const lost: Array<number> = []
    for (const seed of ["one", "one", "two"]) {
      const made = await connect({ loss: 0.2, seed })
      // Answers that come when nobody listens any more are answered themselves, by packets that count.
      await printed(left, "pings.py 192.0.2.2 1000 0 1")
      let [seen, taken] = [0, 0]
      await waitUntil("all packets on the link", async () => {
        const [outward] = await made.figures()
        seen += (outward?.packets ?? 0) + (outward?.lost ?? 0)
        taken += outward?.lost ?? 0
        return seen >= 1000
      })
      expect(seen).toBe(1000)
      lost.push(taken)
      await made.stop()
    }
    expect(lost[0]).toBeGreaterThan(120)
    expect(lost[0]).toBeLessThan(280)
    expect(lost[1]).toBe(lost[0])
    expect(lost[2]).not.toBe(lost[0])
  })

  it("carries far more than a slow line would, and no more than its rate", async () => {
    const made = await connect({})
    const bytes = 40_000_000
    const [seconds = Number.NaN] = await printed(left, `push.py 192.0.2.2 ${bytes}`)
    process.stdout.write(`link: ${(bytes / seconds / 1e6).toFixed(0)} MB/s over one connection\n`)
    expect(bytes / seconds).toBeGreaterThan(4_000_000)
    await made.set({ rate: 1_000_000, queueBytes: 100_000 })
    const [limited = Number.NaN] = await printed(left, "push.py 192.0.2.2 500000")
    expect(limited).toBeGreaterThan(0.35)
  })

  it("drops what finds its queue full", async () => {
    const made = await connect({ delayMs: 100, queueBytes: 2_000 })
    await printed(left, "pings.py 192.0.2.2 200 0 1")
    const [outward] = await made.figures()
    expect(outward?.overflowed).toBeGreaterThan(0)
    expect(outward?.packets).toBeGreaterThan(10)
  })

  it("joins several ends by their addresses, is cut and mended", async () => {
    link = await startLink({
      loss: 1,
      ends: [
        { namespace: left.namespace, address: "192.0.2.1/24" },
        { namespace: right.namespace, address: "192.0.2.2/24" },
        { namespace: third.namespace, name: "other", address: "192.0.2.3/24" }
      ]
    })
    /** What ends take in until the first has so many packets of a kind. */
    const takenUntil = async (kind: "lost" | "refused") => {
      const taken = ["left", "right", "third"].map(() => ({ lost: 0, packets: 0, refused: 0 }))
      await waitUntil(`a packet ${kind}`, async () => {
        for (const [index, { lost, packets, refused }] of ((await link?.figures()) ?? []).entries()) {
          const end = taken[index] as (typeof taken)[number]
          end.lost += lost
          end.packets += packets
          end.refused += refused
        }
        return (taken[0]?.[kind] ?? 0) > 0
      })
      return taken
    }
    expect(await printed(left, "pings.py 192.0.2.2 1 0 0.1")).toEqual([])
    expect((await takenUntil("lost"))[0]).toEqual({ lost: 1, packets: 0, refused: 0 })
    await link.set({ loss: 0 })
    expect((await printed(left, "pings.py 192.0.2.2 1 0 10")).length).toBe(1)
    const before = await link.figures()
    expect(before.map(({ lost, packets }) => [lost, packets])).toEqual([
      [0, 1],
      [0, 1],
      [0, 0]
    ])
    expect((await printed(left, "pings.py 192.0.2.3 1 0 10")).length).toBe(1)
    await printed(left, "pings.py 192.0.2.9 1 0 0.1")
    expect((await takenUntil("refused"))[0]).toEqual({ lost: 0, packets: 1, refused: 1 })
  })

  it("leaves no device behind, and says what it cannot do", async () => {
    const made = await connect({})
    const devices = async () => (await left.run("ls /sys/class/net; ip -o link")).stdout
    expect(await devices()).toContain("link0")
    await made.stop()
    await made.stop()
    expect(await devices()).not.toContain("link0")
    await expect(made.set({ loss: 0 })).rejects.toThrow("the link has ended")
    await expect(startLink({ ends: [{ address: "nonsense" }, { address: "10.0.0.1/24" }] })).rejects.toThrow(
      "ip address add nonsense"
    )
  })
})

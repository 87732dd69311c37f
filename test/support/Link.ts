/**
 * A link between network namespaces with delay, loss and a rate of its own choice. A small program carries every packet
 * between TUN devices (linkEmulator.py), because the kernels that tests run on have no netem. Needs root.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { join } from "node:path"

const emulator = join(import.meta.dirname, "linkEmulator.py")
const tools = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/** A device that the link ends in. */
export interface LinkEnd {
  /** The path of its network namespace, as a `Machine` tells it; the present one without. */
  readonly namespace?: string
  /** The device's name there; `link0` without. Two in one namespace need different names. */
  readonly name?: string
  /** Its IPv4 address, with the length of the network's prefix: `10.20.0.1/24`. */
  readonly address: string
}

/** What happens to packets; all in force at once, for each direction on its own. No packet overtakes another. */
export interface LinkSettings {
  /** From one end to the other; twice this is the round trip. Default 0. */
  readonly delayMs?: number
  /** Added to the delay, at random between 0 and this. Default 0. */
  readonly jitterMs?: number
  /** The share of packets that vanish, 0 to 1; with 1 the link is cut. Default 0. */
  readonly loss?: number
  /** Bytes a second; null for as fast as it goes. Default null. */
  readonly rate?: number | null
  /**
   * Packets that find more bytes than this waiting are dropped. What waits are the packets that the rate holds back;
   * without a rate all that are under way. Default 32 MiB.
   */
  readonly queueBytes?: number
}

export interface LinkOptions extends LinkSettings {
  /** Two ends are a cable: what goes in by one comes out by the other. More are a switch, by the ends' addresses. */
  readonly ends: ReadonlyArray<LinkEnd>
  /** The largest packet. Default 1,500. */
  readonly mtu?: number
  /** Chance is the same for the same seed and the same packets. Default "postern". */
  readonly seed?: string
}

/** What came in by one end since it was last asked about. */
export interface EndFigures {
  readonly name: string
  /** Packets that were delivered, and their bytes. */
  readonly packets: number
  readonly bytes: number
  /** Packets that chance took. */
  readonly lost: number
  /** Packets that found the queue full. */
  readonly overflowed: number
  /** Packets for nobody, or for an end that was down. */
  readonly refused: number
  /** How much later than it should a packet was delivered. */
  readonly lateMeanUs: number
  readonly lateMostUs: number
}

export interface Link {
  /** Changes some of the settings; packets under way keep their times. */
  readonly set: (settings: LinkSettings) => Promise<void>
  /** What each end took in since the last call, in the order of the ends. */
  readonly figures: () => Promise<ReadonlyArray<EndFigures>>
  /** Removes the link; fine when it has ended already. */
  readonly stop: () => Promise<void>
}

interface Wire {
  readonly error?: string
  readonly figures?: ReadonlyArray<
    Omit<EndFigures, "lateMeanUs" | "lateMostUs"> & {
      readonly late_mean_us: number
      readonly late_most_us: number
    }
  >
}

const wireSettings = (settings: LinkSettings): Record<string, number | null> => {
  const { delayMs, jitterMs, loss, queueBytes, rate } = settings
  const all = { delay_ms: delayMs, jitter_ms: jitterMs, loss, rate, queue_bytes: queueBytes }
  return Object.fromEntries(
    Object.entries(all).filter((entry): entry is [string, number | null] => entry[1] !== undefined)
  )
}

/** Asks the emulator one thing after the other: each line it is told, it answers by one. */
const conversation = (child: ChildProcess) => {
  const waiting: Array<{ readonly resolve: (words: Wire) => void; readonly reject: (error: Error) => void }> =
    []
  let heard = ""
  let complaint = ""
  let ended = false
  const gone = new Promise<void>((resolve) => {
    child.once("close", () => {
      ended = true
      for (const { reject } of waiting.splice(0)) reject(new Error(`the link has ended: ${complaint}`))
      resolve()
    })
  })
  child.once("error", (error) => {
    complaint += error.message
  })
  child.stdin?.on("error", () => undefined)
  child.stderr?.on("data", (text: Buffer) => {
    complaint = `${complaint}${text}`.slice(-4_000)
  })
  child.stdout?.on("data", (text: Buffer) => {
    const lines = `${heard}${text}`.split("\n")
    heard = lines.pop() ?? ""
    for (const line of lines) waiting.shift()?.resolve(JSON.parse(line))
  })
  const answer = (): Promise<Wire> =>
    new Promise<Wire>((resolve, reject) => {
      if (ended) reject(new Error(`the link has ended: ${complaint}`))
      else waiting.push({ resolve, reject })
    }).then((words) => {
      if (words.error !== undefined) throw new Error(`the link refuses: ${words.error}`)
      return words
    })
  return {
    answer,
    ask: (words: unknown): Promise<Wire> => {
      const answered = answer()
      child.stdin?.write(`${JSON.stringify(words)}\n`)
      return answered
    },
    end: async (): Promise<void> => {
      child.stdin?.end()
      await gone
    }
  }
}

/** A link that is up: its devices have their addresses. It ends with `stop`, or with this process. */
export const startLink = async (options: LinkOptions): Promise<Link> => {
  const { ends, mtu = 1_500, queueBytes = 32 * 1024 * 1024, seed = "postern" } = options
  const description = {
    ends: ends.map(({ address, name = "link0", namespace = null }) => ({ address, name, namespace })),
    mtu,
    seed,
    settings: wireSettings({ ...options, queueBytes })
  }
  const child = spawn("python3", [emulator, JSON.stringify(description)], {
    env: { PATH: tools },
    stdio: ["pipe", "pipe", "pipe"]
  })
  const { answer, ask, end } = conversation(child)
  try {
    await answer()
  } catch (error) {
    await end()
    throw error
  }
  return {
    set: async (settings) => {
      await ask({ set: wireSettings(settings) })
    },
    figures: async () => {
      const { figures = [] } = await ask({ figures: true })
      return figures.map(({ late_mean_us: lateMeanUs, late_most_us: lateMostUs, ...rest }) => ({
        ...rest,
        lateMeanUs,
        lateMostUs
      }))
    },
    stop: end
  }
}

/** The built server with its MQTT broker on a port of its own, and agents that have come to it. */
import { freePort } from "../../test/support/Program.ts"
import type { Probed } from "../server/probed.ts"
import { withServer } from "../server/setting.ts"
import { simulatedDevices } from "../server/simulated.ts"
import { type BenchAgent, comeAsAgent } from "./agents.ts"

export interface BrokerSetting {
  readonly engine: "native" | "noble"
  readonly threads: number
}

export interface Broker {
  readonly process: Probed
  readonly agents: ReadonlyArray<BenchAgent>
  /** Lets the agents with these numbers come. */
  readonly come: (from: number, to: number) => Promise<ReadonlyArray<BenchAgent>>
}

/** Agents that come at the same moment. */
const together = 16

/** Starts the server with so many accepted devices, of which the first `come` come as agents, and lends all that to `work`. */
export const withBroker = async <A>(
  { engine, threads }: BrokerSetting,
  sizes: { readonly devices: number; readonly come: number },
  work: (broker: Broker) => Promise<A>
): Promise<A> => {
  const devices = simulatedDevices(sizes.devices)
  const port = await freePort()
  const open: Array<BenchAgent> = []
  const settings = {
    POSTERN_CRYPTO_ENGINE: engine,
    POSTERN_MESSAGING_LISTEN: `127.0.0.1:${port}`,
    POSTERN_MESSAGING_THREADS: String(threads),
    POSTERN_MESSAGING_MAXIMUM_CONNECTIONS: String(Math.max(1_000, 2 * sizes.devices)),
    POSTERN_MESSAGING_DISCOVERY_INTERVAL_MS: "3600000",
    POSTERN_LOG_LEVEL: "warn"
  }
  return withServer(
    devices,
    async ({ process }, server) => {
      const come = async (from: number, to: number) => {
        const found: Array<BenchAgent> = []
        let next = from
        const lane = async () => {
          for (let index = next++; index < to; index = next++) {
            const device = devices[index]
            if (device === undefined) return
            const agent = await comeAsAgent({ port, server }, device, index)
            found.push(agent)
            open.push(agent)
          }
        }
        await Promise.all(Array.from({ length: together }, lane))
        return found
      }
      try {
        return await work({ process, agents: await come(0, sizes.come), come })
      } finally {
        for (const { line } of open) line.close()
      }
    },
    settings
  )
}

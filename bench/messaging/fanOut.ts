/** One private message to 1, 10 and 100 recipients: it is verified and opened once, and signed and sealed for each. */
import { availableParallelism } from "node:os"
import { type Bench, compare, median, type Result } from "../measure.ts"
import { withBroker } from "./setting.ts"
import { flood } from "./traffic.ts"

const senders = 8
const widths = [1, 10, 100]

export const run: Bench = async ({ short }) => {
  const deliveries = short ? 800 : 8_000
  const rounds = short ? 2 : 5
  const devices = senders + Math.max(...widths)
  const setting = { engine: "native", threads: availableParallelism() } as const
  const rates = await withBroker(setting, { devices, come: devices }, async (broker) => {
    const found = new Map<number, Array<number>>()
    for (let round = -1; round < rounds; round++) {
      for (const fanOut of widths) {
        const traffic = {
          senders: broker.agents.slice(0, senders),
          receivers: broker.agents.slice(senders),
          fanOut
        }
        const flow = await flood(broker, traffic, Math.max(senders, deliveries / fanOut))
        const rate = (flow.deliveries / flow.cpuMs) * 1_000
        if (round >= 0) found.set(fanOut, [...(found.get(fanOut) ?? []), rate])
      }
    }
    return new Map([...found].map(([fanOut, all]) => [fanOut, median(all)] as const))
  })
  const one = rates.get(1) as number
  return widths.map(
    (fanOut): Result =>
      compare(
        {
          name: `deliveries of messages to ${fanOut}, per second of processor time`,
          unit: "deliveries/s",
          better: "higher"
        },
        { ours: rates.get(fanOut) as number, ...(fanOut === 1 ? {} : { "of messages to one": one }) },
        "ours"
      )
  )
}

/**
 * Ports for the parts of a network.
 *
 * @module
 */
import { randomInt } from "node:crypto"
import { createServer } from "node:net"
import { Effect } from "effect"
import { TorLabError } from "./LabFailure.ts"

/** Below the ports that the system gives to outgoing connections, and apart from those that tests draw elsewhere. */
const lowestPort = 12_000
const highestPort = 20_000
const attempts = 50

const isFree = (address: string, port: number): Effect.Effect<boolean> =>
  Effect.callback((resume) => {
    const probe = createServer()
    probe.once("error", () => resume(Effect.succeed(false)))
    probe.listen(port, address, () => probe.close(() => resume(Effect.succeed(true))))
  })

/**
 * Draws different ports, free now on that address. In another network namespace that cannot be tried: there they are
 * drawn only.
 */
export const drawPorts = Effect.fnUntraced(function* (count: number, address: string, canTry: boolean) {
  const ports = new Set<number>()
  for (let left = count + attempts; ports.size < count; left--) {
    if (left === 0)
      return yield* new TorLabError({
        message: `No ${count} free ports between ${lowestPort} and ${highestPort} were found on ${address}`
      })
    const port = randomInt(lowestPort, highestPort)
    if (!ports.has(port) && (!canTry || (yield* isFree(address, port)))) ports.add(port)
  }
  return [...ports]
})

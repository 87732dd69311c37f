/**
 * The private Tor network starts, again and again: each time a service and a client of it come up, the client gets the
 * service's answer, and nothing is left behind.
 */
import { spawn } from "node:child_process"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import { Effect, type Scope } from "effect"
import { afterAll, beforeAll, expect, it } from "vitest"
import { type LabLaunch, startLabNode } from "../../src/adapters/tor/lab/LabNode.ts"
import {
  type PrivateTorNetwork,
  type PrivateTorNetworkOptions,
  startPrivateTorNetwork
} from "../../src/adapters/tor/lab/PrivateTorNetwork.ts"
import { freePort, waitUntil } from "../support/Program.ts"
import { proofSize } from "../support/proof.ts"
import { describeWith } from "../support/requires.ts"
import { NetworkStarter, processesOf } from "../support/torProcesses.ts"

const starts = proofSize === "short" ? 5 : 20
const answer = "hello from behind the onion"

let web: Server
beforeAll(async () => {
  web = createServer((_, response) => response.end(answer))
  await new Promise<void>((resolve) => web.listen(0, "127.0.0.1", resolve))
})
afterAll(() => {
  web.closeAllConnections()
  web.close()
})

const webPort = () => (web.address() as AddressInfo).port

/** One request through a client's SOCKS port, on a circuit of its own: what came, or nothing. */
const fetchOnce = (socks: string, url: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const child = spawn("curl", ["--silent", "--max-time", "20", "--proxy", `socks5h://${socks}`, url])
    let text = ""
    child.stdout.setEncoding("utf8").on("data", (part) => {
      text += part
    })
    child.once("error", reject)
    child.once("close", () => resolve(text))
  })

let circuits = 0
const firstAnswer = (socksPort: number, url: string): Promise<string> =>
  waitUntil(
    `an answer of ${url}`,
    async () => {
      circuits++
      return (await fetchOnce(`circuit${circuits}:x@127.0.0.1:${socksPort}`, url)) === answer && answer
    },
    150_000
  )

const seconds = (sinceMs: number) => (performance.now() - sinceMs) / 1000

/** The middle of the list, and its ends. */
const spread = (values: ReadonlyArray<number>): string => {
  const sorted = values.toSorted((left, right) => left - right)
  const at = (share: number) => (sorted[Math.round(share * (sorted.length - 1))] as number).toFixed(1)
  return `${at(0)} / ${at(0.5)} / ${at(1)} s (least, median, most)`
}

/** A client of the network beside it, and the port of its SOCKS. */
const startClient = Effect.fnUntraced(function* (
  network: PrivateTorNetwork,
  lines: ReadonlyArray<string> = []
) {
  const launch: LabLaunch = { folder: network.folder, command: ["tor"] }
  const port = yield* Effect.promise(freePort)
  yield* startLabNode(launch, "client", [
    ...network.options,
    `SocksPort 127.0.0.1:${port} ExtendedErrors`,
    ...lines
  ])
  return port
})

const startService = Effect.fnUntraced(function* (network: PrivateTorNetwork) {
  const launch: LabLaunch = { folder: network.folder, command: ["tor"] }
  const keys = join(network.folder, "service", "onion")
  yield* startLabNode(launch, "service", [
    ...network.options,
    "SocksPort 0",
    `HiddenServiceDir ${keys}`,
    `HiddenServicePort 80 127.0.0.1:${webPort()}`
  ])
  return readFileSync(join(keys, "hostname"), "utf8").trim()
})

/** Runs `body` with a network that is stopped after it; nothing of it may be left. */
const withNetwork = async <A>(
  options: PrivateTorNetworkOptions,
  body: (network: PrivateTorNetwork) => Effect.Effect<A, unknown, Scope.Scope>
): Promise<A> => {
  const { folder, value } = await Effect.runPromise(
    Effect.scoped(
      Effect.gen(function* () {
        const network = yield* startPrivateTorNetwork(options)
        expect(readdirSync(network.folder).length).toBeGreaterThan(0)
        return { folder: network.folder, value: yield* body(network) }
      })
    )
  )
  expect(processesOf(folder)).toEqual([])
  expect(existsSync(folder)).toBe(false)
  return value
}

describeWith(["tor", "tor-gencert", "curl"], "private Tor networks", () => {
  it(`start ${starts} times in a row, answer, and leave nothing behind`, async () => {
    const stood: Array<number> = []
    const answered: Array<number> = []
    for (let start = 0; start < starts; start++) {
      const beganMs = performance.now()
      await withNetwork({}, (network) =>
        Effect.gen(function* () {
          stood.push(seconds(beganMs))
          const [host, port] = yield* Effect.all([startService(network), startClient(network)], {
            concurrency: 2
          })
          expect(yield* Effect.promise(() => firstAnswer(port, `http://${host}/`))).toBe(answer)
          answered.push(seconds(beganMs))
        })
      )
    }
    expect(answered).toHaveLength(starts)
    process.stdout.write(
      `private Tor network, ${starts} cold starts: it stood after ${spread(stood)}, an onion service answered after ${spread(answered)}\n`
    )
  }, 1_800_000)

  it("leave neither processes nor files when the starter of one that stands is killed", async () => {
    const starter = new NetworkStarter()
    await starter.stands()
    await starter.killed()
    expect(existsSync(starter.parent)).toBe(false)
  })
})

describeWith(
  ["tor", "tor-gencert", "curl", "obfs4proxy"],
  "a private Tor network with an exit and a bridge",
  () => {
    it("lets a client out that knows nothing but the bridge, and tells when a relay ends", async () => {
      const came = await withNetwork({ exit: true, bridge: true }, (network) =>
        Effect.gen(function* () {
          const { line, transport } = network.bridge as NonNullable<typeof network.bridge>
          const port = yield* startClient(network, [
            "UseBridges 1",
            `Bridge ${line}`,
            `ClientTransportPlugin ${transport}`,
            "ClientRejectInternalAddresses 0"
          ])
          return yield* Effect.promise(() => firstAnswer(port, `http://127.0.0.1:${webPort()}/`))
        })
      )
      expect(came).toBe(answer)
    })
  }
)

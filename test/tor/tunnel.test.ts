/** The device's way through Tor in a real network: by itself, through a bridge, through proxies, on a tor that runs already. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, Exit, Layer, Schema, Scope } from "effect"
import { afterAll, beforeAll, expect, it } from "vitest"
import { TunnelKeeperKey } from "../../src/actors/ClientKeys.ts"
import { tunnelKeeper } from "../../src/actors/TunnelKeeper.ts"
import { NativeCryptoEngine } from "../../src/adapters/NativeCrypto.ts"
import { fetchOver } from "../../src/adapters/operator/RoutedFetch.ts"
import { SystemEntropy } from "../../src/adapters/SystemEntropy.ts"
import { startLabNode } from "../../src/adapters/tor/lab/LabNode.ts"
import { relayNodeLines } from "../../src/adapters/tor/lab/LabTorrc.ts"
import { readBridge } from "../../src/adapters/tor/lab/PrivateTorNetwork.ts"
import { connectControl } from "../../src/adapters/tor/TorControl.ts"
import { ActorSystem, ChildSpec, Supervisor } from "../../src/kernel/index.ts"
import { Tunnel } from "../../src/ports/Tunnel.ts"
import { transportOf, tunnelOf } from "../../src/programs/client/Reach.ts"
import { ClientConfig } from "../../src/schemas/ClientConfig.ts"
import type { OnionClientKey, OnionHost } from "../../src/schemas/Onion.ts"
import { onionConfig, TestServices } from "../support/onions.ts"
import { freePort, waitUntil } from "../support/Program.ts"
import { describeWith } from "../support/requires.ts"
import { type KnownTorNetwork, sharedTorNetwork } from "../support/torNetwork.ts"
import { countingProxy, proxyCredentials } from "../support/torProxy.ts"

const run = Effect.runPromise

type Settings = Partial<typeof ClientConfig.Encoded>

/** The part of a device that keeps its tunnel, with the settings of its configuration. */
class TestTunnel {
  readonly folder = mkdtempSync(join(tmpdir(), "tunnel-"))
  private readonly scope = Scope.makeUnsafe()
  port!: Tunnel["Service"]
  private get!: typeof fetch

  async start(settings: Settings): Promise<void> {
    const config = Schema.decodeUnknownSync(ClientConfig)({ ...settings, state_folder: this.folder })
    const layer = tunnelOf(config).pipe(Layer.provide([NativeCryptoEngine, SystemEntropy]))
    const keeper = ChildSpec.make({
      key: TunnelKeeperKey,
      shutdownMs: 2_500,
      behaviour: tunnelKeeper({ longestPauseMs: 60_000 })
    })
    const root = Supervisor.spec({ id: "device", strategy: "one-for-one", children: [keeper] })
    await Effect.gen({ self: this }, function* () {
      const context = yield* Layer.build(layer)
      const inContext = Effect.provideContext(context)
      this.port = yield* inContext(Effect.service(Tunnel))
      this.get = fetchOver(yield* inContext(transportOf(config)))
      yield* inContext(ActorSystem.make({ root }))
    }).pipe(Scope.provide(this.scope), run)
  }

  /** tor's process; undefined where none runs, or it just writes its number down. */
  get pid(): number | undefined {
    const path = join(this.folder, "tor", "pid")
    return (existsSync(path) && Number(readFileSync(path, "utf8"))) || undefined
  }

  /** Asks for a way, as a first request would, and waits until there is one. */
  async ready(): Promise<void> {
    await run(this.port.endpoint("http://x.onion"))
    const state = () => Effect.runSync(this.port.state)
    await waitUntil(
      "a way through Tor",
      () => state().phase === "ready",
      90_000,
      () => JSON.stringify(state())
    )
  }

  /**
   * Asks a service again and again until it answers. An attempt takes up to a minute where a circuit is dead. Who asked before
   * all directories had the list with its key has tor forget that, as a device does: it asks none of them twice otherwise.
   */
  async reaches(host: OnionHost, door: string): Promise<void> {
    let last = ""
    await waitUntil(
      `the answer of ${door}`,
      async () => {
        last = await this.ask(host)
        if (last === door) return true
        await run(this.port.renew)
        return false
      },
      120_000,
      () => `the last answer: ${last}`
    )
  }

  /** What a service answers, or why it does not. */
  async ask(host: OnionHost): Promise<string> {
    try {
      return await (await this.get(`http://${host}/`)).text()
    } catch (error) {
      return String(error instanceof Error ? (error.cause ?? error.message) : error)
    }
  }

  async stop(): Promise<void> {
    await run(Scope.close(this.scope, Exit.void))
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 })
  }
}

/** tor's own view, by a control connection beside the device's. */
const asked = (folder: string, command: string): Promise<ReadonlyArray<string>> =>
  Effect.flatMap(connectControl({ endpoint: { path: join(folder, "control") } }), (control) =>
    control.send(command)
  ).pipe(Effect.scoped, run)

describeWith(["tor", "tor-gencert", "obfs4proxy"], "the way through Tor", () => {
  let network: KnownTorNetwork
  let server: TestServices
  const stops: Array<() => Promise<void>> = []
  const keys: Array<OnionClientKey> = []

  const tunnel = async (settings: Settings): Promise<TestTunnel> => {
    const made = new TestTunnel()
    stops.push(() => made.stop())
    await made.start({
      ...settings,
      tor: { options: network.options, ...(settings.tor as object | undefined) }
    })
    return made
  }

  /** Lets this device in, beside those before it. */
  const admit = async (device: TestTunnel): Promise<void> => {
    const key = await run(device.port.clientKey)
    if (key === null) throw new Error("a device that uses Tor has a key")
    keys.push(key)
    await server.setClients(...keys)
  }

  beforeAll(async () => {
    network = await sharedTorNetwork()
    server = new TestServices(onionConfig({ options: network.options }))
    stops.push(() => server.stop())
    await server.openDoors()
    await server.open()
  })
  afterAll(async () => {
    await Promise.all(stops.map((stop) => stop()))
  })

  it.concurrent("is opened when it is wanted, shows the device's own key, and is there again after kill -9", async () => {
    const device = await tunnel({})
    expect(device.pid).toBeUndefined()
    await admit(device)
    await server.publishEnrolment(true)
    await device.ready()
    await server.published("device")
    await server.published("enrol")
    // A service that needs no key is reached by one who shows one, too.
    await device.reaches(server.hosts.enrol, "enrol")
    await device.reaches(server.hosts.device, "device")
    const first = device.pid as number
    const killedMs = performance.now()
    process.kill(first, "SIGKILL")
    await waitUntil("another tor", () => device.pid !== undefined && device.pid !== first)
    await device.ready()
    // Measured: one to two seconds. The bound is for machines that do much else.
    expect(performance.now() - killedMs).toBeLessThan(45_000)
    await device.reaches(server.hosts.device, "device")
  })

  it.concurrent.each(["http", "socks5"] as const)(
    "goes through a proxy (%s), and says when that refuses",
    async (kind) => {
      const proxy = await countingProxy(kind)
      stops.push(proxy.close)
      const wrong = await tunnel({
        proxy: `${kind}://somebody:else@127.0.0.1:${proxy.port}`,
        tor: { mode: "always" }
      })
      const device = await tunnel({
        proxy: `${kind}://${proxyCredentials}@127.0.0.1:${proxy.port}`,
        tor: { mode: "always" }
      })
      await device.ready()
      expect(proxy.made()).toBeGreaterThan(0)
      await waitUntil("the refusal", () => proxy.refused() > 0)
      // tor complains of other things too, and what it said last counts.
      const refusal = await waitUntil("its reason", async () => {
        const state = await run(wrong.port.state)
        return /proxy/i.test(state.reason ?? "") && state
      })
      expect(refusal.phase).toBe("bootstrapping")
    }
  )

  it.concurrent("goes through an obfs4 bridge, and to no relay directly", async () => {
    const port = await freePort()
    const place = { nickname: "bridge", address: "127.0.0.1", orPort: await freePort() }
    const transport = { program: "/usr/bin/obfs4proxy", port }
    const folder = mkdtempSync(join(tmpdir(), "bridge-"))
    const scope = Scope.makeUnsafe()
    stops.push(async () => {
      await run(Scope.close(scope, Exit.void))
      rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
    })
    writeFileSync(join(folder, "empty"), "")
    const lines = relayNodeLines(network.authority, place, "/dev/null", "bridge", transport)
    const node = await run(Scope.provide(startLabNode({ folder, command: ["tor"] }, "bridge", lines), scope))
    const written = join(node.folder, "pt_state", "obfs4_bridgeline.txt")
    await waitUntil("the bridge's line", () => existsSync(written))
    const bridge = await run(readBridge(node, place, transport))
    const device = await tunnel({
      tor: { mode: "always", bridges: [bridge.line], transports: [bridge.transport] }
    })
    await device.ready()
    const [status = ""] = await asked(join(device.folder, "tor"), "GETINFO orconn-status")
    const fingerprint = / ([0-9A-F]{40}) /.exec(bridge.line)?.[1] as string
    const others = status.split("\n").filter((line) => line.includes("$") && !line.includes(fingerprint))
    expect(status).toContain(fingerprint)
    expect(others).toEqual([])
  })

  it.concurrent("is attached to a tor that runs already, and takes the device's key back when it leaves", async () => {
    const other = await tunnel({ tor: { mode: "always" } })
    await other.ready()
    const control = join(other.folder, "tor", "control")
    const device = await tunnel({ tor: { control: `unix:${control}`, options: [] } })
    await admit(device)
    await device.ready()
    expect(device.pid).toBeUndefined()
    await device.reaches(server.hosts.device, "device")
    const hasKey = async () =>
      (await asked(join(other.folder, "tor"), "ONION_CLIENT_AUTH_VIEW"))
        .join()
        .includes(server.hosts.device.slice(0, 56))
    expect(await hasKey()).toBe(true)
    await device.stop()
    // Who leaves waits no longer than half a second for tor's answer.
    await waitUntil("the key to be gone", async () => !(await hasKey()))
    await other.ready()
  })
})

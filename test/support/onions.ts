/** Onion services and their clients in the tests' Tor network. */
import { randomBytes } from "node:crypto"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { createServer, request, type Server } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, Exit, Layer, Redacted, Schema, Scope } from "effect"
import { NativeCrypto, NativeCryptoEngine } from "../../src/adapters/NativeCrypto.ts"
import { NodeKeysFile } from "../../src/adapters/NodeKeys.ts"
import { type Dialled, dial } from "../../src/adapters/net/Dial.ts"
import { RouteError } from "../../src/adapters/net/RouteError.ts"
import { SystemEntropy } from "../../src/adapters/SystemEntropy.ts"
import { openTor, type TorNode } from "../../src/adapters/tor/TorNode.ts"
import { TorOnionServices } from "../../src/adapters/tor/TorOnionServices.ts"
import { encodeBase64 } from "../../src/crypto/Base64.ts"
import { onionKeyOf } from "../../src/crypto/OnionKeys.ts"
import { OnionServices, type OpenOnionServices } from "../../src/ports/OnionServices.ts"
import type { OnionClientKey, OnionHost } from "../../src/schemas/Onion.ts"
import type { OnionServiceName, OnionServiceStatus } from "../../src/schemas/OnionStatus.ts"
import { OnionConfig } from "../../src/schemas/ServerConfig.ts"
import { waitUntil } from "./Program.ts"

/** The settings of the table `onion`, with the given ones in the place of defaults. */
export const onionConfig = (given: Partial<typeof OnionConfig.Encoded> = {}): OnionConfig =>
  Schema.decodeUnknownSync(Schema.Struct({ onion: OnionConfig }))({ onion: { enabled: true, ...given } })
    .onion

/** A server's half: doors that say their name, the port to tor, and one life of it at a time. */
export class TestServices {
  readonly folder = mkdtempSync(join(tmpdir(), "onion-"))
  readonly config: OnionConfig
  private readonly doors = new Map<OnionServiceName, Server>()
  private readonly places = new Map<OnionServiceName, string>()
  private life: Scope.Closeable | undefined
  port!: OnionServices["Service"]
  services!: OpenOnionServices

  constructor(config: OnionConfig) {
    this.config = config
  }

  /** Opens the doors; on sockets, or on loopback ports for a tor that runs already. */
  async openDoors(): Promise<void> {
    for (const service of ["device", "enrol", "management"] as const) {
      const server = createServer((_, answer) => answer.end(service))
      // A kept connection stays for longer than a few circuits take to be built.
      server.keepAliveTimeout = 60_000
      const path = join(this.folder, `${service}.sock`)
      const isOwn = this.config.control === null
      await new Promise<void>((resolve) => {
        if (isOwn) server.listen(path, resolve)
        else server.listen(0, "127.0.0.1", resolve)
      })
      const address = server.address()
      this.doors.set(service, server)
      this.places.set(
        service,
        typeof address === "object" && address !== null ? `http://127.0.0.1:${address.port}` : `unix:${path}`
      )
    }
  }

  /** One life: tor started, or attached to. */
  async open(): Promise<void> {
    const life = Scope.makeUnsafe()
    this.life = life
    const layer = TorOnionServices({
      stateFolder: this.folder,
      settings: this.config,
      door: (service) => this.places.get(service) ?? null
    }).pipe(
      Layer.provide(NodeKeysFile({ stateFolder: this.folder, kind: "server" })),
      Layer.provide([NativeCryptoEngine, SystemEntropy])
    )
    this.port = await Effect.runPromise(Effect.provide(OnionServices, layer))
    this.services = await Effect.runPromise(Scope.provide(this.port.open, life))
  }

  async close(): Promise<void> {
    if (this.life !== undefined) await Effect.runPromise(Scope.close(this.life, Exit.void))
    this.life = undefined
  }

  get hosts() {
    return this.port.hosts
  }

  /** tor's process, when it is our own. */
  get pid(): number {
    return Number(readFileSync(join(this.folder, "onion", "tor", "pid"), "utf8"))
  }

  async setClients(...keys: ReadonlyArray<OnionClientKey>): Promise<void> {
    await Effect.runPromise(this.services.setClients(keys))
  }

  async publishEnrolment(isOpen: boolean): Promise<void> {
    await Effect.runPromise(this.services.publishEnrolment(isOpen))
  }

  async statusOf(service: OnionServiceName): Promise<OnionServiceStatus> {
    const { services } = await Effect.runPromise(this.services.status)
    return services.find((each) => each.service === service) as OnionServiceStatus
  }

  /** Waits until directories have a descriptor that was uploaded after `sinceUploads`. */
  async published(service: OnionServiceName, sinceUploads = 0): Promise<void> {
    await waitUntil(
      `the descriptor of ${service}`,
      async () => {
        const { descriptor, uploads } = await this.statusOf(service)
        return descriptor === "published" && uploads > sinceUploads
      },
      120_000
    )
  }

  async stop(): Promise<void> {
    await this.close()
    for (const door of this.doors.values()) {
      door.closeAllConnections()
      await new Promise((resolve) => door.close(resolve))
    }
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 })
  }
}

/** A device's half: a tor of its own with a way in, and keys that it may be given. */
export class TestClient {
  private readonly scope = Scope.makeUnsafe()
  private readonly folder = mkdtempSync(join(tmpdir(), "onion-client-"))
  private circuit = 0
  private readonly secrets = new Map<OnionHost, string>()
  private isRenewed = false
  private tor!: TorNode

  async open(options: ReadonlyArray<string>): Promise<void> {
    const opened = openTor({
      folder: join(this.folder, "tor"),
      settings: onionConfig({ options }),
      proxy: null,
      socks: true,
      lines: []
    })
    this.tor = await Effect.runPromise(Scope.provide(opened, this.scope))
    await waitUntil(
      "the client's way into the network",
      async () => (await Effect.runPromise(this.tor.bootstrap)).circuits,
      90_000
    )
  }

  /** Where its tor takes commands. */
  get controlSocket(): string {
    return join(this.folder, "tor", "control")
  }

  /** Makes a key and, for this host, uses it. */
  async key(host: OnionHost): Promise<OnionClientKey> {
    const secret = randomBytes(32)
    this.secrets.set(host, encodeBase64(secret))
    await this.tell(host)
    return onionKeyOf(NativeCrypto, Redacted.make(secret))
  }

  private async tell(host: OnionHost): Promise<void> {
    const secret = this.secrets.get(host)
    if (secret !== undefined)
      await this.command(`ONION_CLIENT_AUTH_ADD ${host.slice(0, 56)} x25519:${secret}`)
  }

  /** Forgets descriptors, circuits and the key for this host. */
  async forget(host: OnionHost): Promise<void> {
    this.secrets.delete(host)
    await this.command(`ONION_CLIENT_AUTH_REMOVE ${host.slice(0, 56)}`)
    await this.renew()
  }

  /** New circuits. tor forgets the keys it was told with them, so they are told again, until it has forgotten. */
  async renew(): Promise<void> {
    await this.command("SIGNAL NEWNYM")
    this.isRenewed = true
  }

  async command(text: string): Promise<void> {
    const { control } = this.tor
    if (control === null) throw new Error("a client of one's own takes commands")
    await Effect.runPromise(control.send(text))
  }

  /** One request on a circuit of its own: the body, or what went wrong. */
  async get(host: OnionHost, path = "/", withinMs = 60_000): Promise<string> {
    const signal = AbortSignal.timeout(withinMs)
    // The signal may take effect seconds after it was given.
    if (this.isRenewed) await this.tell(host)
    const { socks } = this.tor
    if (socks === null) throw new Error("a client of one's own has a way in")
    const circuits = {
      current: () => ++this.circuit,
      fresh: () => ++this.circuit,
      userOf: (epoch: number) => ({ name: `test-${epoch}`, password: "x" })
    }
    let dialled: Dialled
    try {
      const route = { _tag: "Tor", endpoint: socks } as const
      dialled = await dial(route, { host, port: 80 }, circuits, signal, [6_000, 14_000])
    } catch (error) {
      if (error instanceof RouteError) return error.failure ?? error.message
      return "no answer"
    }
    const { socket } = dialled
    return new Promise((resolve) => {
      const failed = (error: Error) => resolve(error.message)
      const asked = request({ host, path, createConnection: () => socket, signal }, (answer) => {
        const parts: Array<Buffer> = []
        answer.on("data", (part: Buffer) => parts.push(part))
        answer.on("error", failed)
        answer.on("end", () => {
          socket.destroy()
          resolve(Buffer.concat(parts).toString())
        })
      })
      asked.on("error", failed)
      asked.end()
    })
  }

  /** Asks again and again until this is the answer. */
  async until(host: OnionHost, wanted: string, path = "/"): Promise<void> {
    await this.untilAnswered(host, (answer) => answer === wanted, wanted, path)
  }

  /** Asks again and again until the answer is JSON, which it gives. */
  async json(host: OnionHost, path: string): Promise<object> {
    return JSON.parse(await this.untilAnswered(host, (answer) => /^[{[]/.test(answer), "JSON", path))
  }

  /** Asks until it is told that it may not; what went wrong on the way there is no such word. Fails where it is let in. */
  async isShutOut(host: OnionHost, inside: RegExp): Promise<true> {
    await this.untilAnswered(
      host,
      (answer) => {
        if (inside.test(answer)) throw new Error(`it was let in at ${host}: ${answer}`)
        return answer === "onion_not_authorised"
      },
      "a refusal"
    )
    return true
  }

  /**
   * Asks until it may not come in any more. A descriptor that it has read opens until tor forgets it, and directories take
   * the next one at different times: so it forgets after each answer.
   */
  async untilShutOut(host: OnionHost): Promise<void> {
    await this.renew()
    const isRefusal = async (answer: string) => {
      if (answer === "onion_not_authorised") return true
      await this.renew()
      return false
    }
    await this.untilAnswered(host, isRefusal, "a refusal at last")
  }

  private async untilAnswered(
    host: OnionHost,
    isIt: (answer: string) => boolean | Promise<boolean>,
    wanted: string,
    path = "/"
  ): Promise<string> {
    let last = ""
    return waitUntil(
      `${wanted} from ${host}${path}`,
      async () => {
        last = await this.get(host, path, 20_000).catch((error: Error) => error.message)
        return (await isIt(last)) && last
      },
      120_000,
      () => `the last answer: ${last}`
    )
  }

  async stop(): Promise<void> {
    await Effect.runPromise(Scope.close(this.scope, Exit.void))
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 })
  }
}

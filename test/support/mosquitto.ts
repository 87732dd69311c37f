/** A real Mosquitto on loopback, with the files that the server's own writer makes. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process"
import { randomBytes } from "node:crypto"
import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { connect as connectTcp } from "node:net"
import { join } from "node:path"
import { connect as connectTls } from "node:tls"
import { Effect } from "effect"
import { BrokerKeeperKey } from "../../src/actors/ServerKeys.ts"
import { findPlugin } from "../../src/adapters/mosquitto/DynamicSecurityPlugin.ts"
import { type MosquittoBrokerOptions, mosquittoBroker } from "../../src/adapters/mosquitto/MosquittoBroker.ts"
import {
  configurationText,
  fileNames,
  saltBytes,
  securityText
} from "../../src/adapters/mosquitto/MosquittoFiles.ts"
import type { FoundBus } from "../../src/adapters/mqtt/MqttBus.ts"
import { BusError } from "../../src/ports/MessageBus.ts"
import type { DeviceId, Name } from "../../src/schemas/Ids.ts"
import { brokerAnswer } from "../../src/schemas/protocols/BrokerKeeper.ts"
import type { BrokerParts, Fleet, Services } from "./messaging.ts"
import { freePort, waitUntil } from "./Program.ts"

/** A CA and a certificate of it for 127.0.0.1, made in a folder by the very commands of docs/mosquitto.md. */
export const makeCertificates = (folder: string): void => {
  const page = readFileSync(join(import.meta.dirname, "../../docs/mosquitto.md"), "utf8")
  const commands = /<!-- certificates -->\n```sh\n(?<commands>[^`]+)```/.exec(page)?.groups?.["commands"]
  if (commands === undefined) throw new Error("docs/mosquitto.md has no commands for certificates")
  const env = { ...process.env, HOST: "127.0.0.1" }
  execFileSync("sh", ["-e", "-c", commands], { cwd: folder, stdio: "pipe", env })
}

export interface RealMosquittoOptions {
  readonly tls?: boolean
  readonly topicRoot?: string
  readonly queuePackets?: number
}

export class RealMosquitto {
  readonly folder: string
  readonly topicRoot: string
  readonly password = randomBytes(18).toString("base64")
  readonly options: RealMosquittoOptions
  port = 0
  private child: ChildProcess | undefined
  private log = ""

  constructor(folder: string, options: RealMosquittoOptions = {}) {
    this.folder = join(folder, "mosquitto")
    this.options = options
    this.topicRoot = options.topicRoot ?? "mf2c"
  }

  /** Writes the files, and starts it. */
  async make(): Promise<void> {
    mkdirSync(join(this.folder, fileNames.data), { recursive: true })
    const tls = this.options.tls ?? false
    if (tls) makeCertificates(this.folder)
    this.port = await freePort()
    const options = {
      folder: this.folder,
      topicRoot: this.topicRoot,
      user: "broker-services",
      listen: { host: "127.0.0.1", port: this.port },
      tls: tls
        ? { certificate: join(this.folder, "server.crt"), key: join(this.folder, "server.key") }
        : null,
      plugin: findPlugin() ?? "mosquitto_dynamic_security.so",
      queuePackets: this.options.queuePackets ?? 10_000,
      saveEverySeconds: 0,
      // Mosquitto gives root up unless it is told not to, and could not read a folder of this test's.
      runAs: process.getuid?.() === 0 ? "root" : null
    }
    writeFileSync(join(this.folder, fileNames.configuration), configurationText(options))
    writeFileSync(
      join(this.folder, fileNames.security),
      securityText(options, this.password, randomBytes(saltBytes)),
      { mode: 0o600 }
    )
    await this.start()
  }

  get ca(): string | null {
    return this.options.tls ? readFileSync(join(this.folder, "ca.crt"), "utf8") : null
  }

  get address(): string {
    return `${this.options.tls ? "mqtts" : "mqtt"}://127.0.0.1:${this.port}`
  }

  async start(): Promise<void> {
    const child = spawn("mosquitto", ["-c", join(this.folder, fileNames.configuration)], {
      stdio: ["ignore", "ignore", "pipe"],
      env: { ...process.env, PATH: `${process.env["PATH"]}:/usr/sbin:/sbin` }
    })
    this.child = child
    child.stderr?.on("data", (text: Buffer) => {
      this.log += text.toString()
    })
    await waitUntil("Mosquitto to listen", () => this.answers(child))
  }

  private answers(child: ChildProcess): Promise<boolean> {
    if (child.exitCode !== null) throw new Error(`Mosquitto ended with ${child.exitCode}: ${this.log}`)
    return new Promise((done) => {
      const socket = connectTcp(this.port, "127.0.0.1")
      socket.once("connect", () => {
        socket.destroy()
        done(true)
      })
      socket.once("error", () => done(false))
    })
  }

  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    const { child } = this
    this.child = undefined
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const gone = new Promise<void>((done) => child.once("exit", () => done()))
    child.kill(signal)
    await gone
  }

  /** A stream of an agent to it. */
  dial() {
    return Effect.acquireRelease(
      Effect.sync(() =>
        this.options.tls
          ? connectTls({ host: "127.0.0.1", port: this.port, ca: this.ca ?? undefined })
          : connectTcp(this.port, "127.0.0.1")
      ),
      (socket) => Effect.sync(() => socket.destroy())
    )
  }

  /** The broker as a server over a fleet has it. */
  broker({ book, database, fleet, topicRoot }: BrokerParts) {
    const options: MosquittoBrokerOptions = {
      address: this.address,
      agentsAddress: this.address,
      ca: this.ca,
      user: "broker-services",
      password: this.password,
      topicRoot,
      database,
      book,
      entropy: (bytes) => Effect.sync(() => new Uint8Array(randomBytes(bytes))),
      isAgent: isAgentOf(fleet)
    }
    return mosquittoBroker(options)
  }

  /** How an agent finds it, asking the server as the device API does. */
  find(services: Services, fleet: Fleet, name: string, mqtt: 4 | 5): Effect.Effect<FoundBus, BusError> {
    const unreachable = (error: { readonly reason?: string; readonly _tag: string }) =>
      new BusError({ code: "unreachable", reason: error.reason ?? error._tag })
    const device = fleet.ring(name).id as DeviceId
    return Effect.gen({ self: this }, function* () {
      if (!(yield* Effect.mapError(isAgentOf(fleet)(name as Name, device), unreachable)))
        return yield* new BusError({ code: "refused", reason: "the device is not accepted" })
      const asking = services.system.ref(BrokerKeeperKey).ask("Password", { agent: name as Name, device })
      const password = yield* Effect.mapError(brokerAnswer(asking, 30_000), unreachable)
      return { topicRoot: this.topicRoot, password, brokers: [{ mqtt, dial: this.dial() }] }
    })
  }
}

const isAgentOf = (fleet: Fleet) => (agent: string, device: DeviceId) =>
  Effect.map(fleet.store.deviceNamed(agent as Name), (row) => row?.device === device)

/** One for as long as the scope is open. */
export const realMosquitto = (folder: string, options: RealMosquittoOptions = {}) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const real = new RealMosquitto(folder, options)
      await real.make()
      return real
    }),
    (real) => Effect.promise(() => real.stop())
  )

/** The embedded broker over a folder, for tests: roles are passwords. */
import { mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, Exit, Scope } from "effect"
import mqtt, { type MqttClient } from "mqtt"
import { embeddedBroker } from "../../src/adapters/mqtt/EmbeddedBroker.ts"
import { MqttUpgrades } from "../../src/adapters/mqtt/MqttUpgrades.ts"
import { openInProcess } from "../../src/adapters/sqlite/InProcessDatabase.ts"
import { messagesDatabase } from "../../src/adapters/sqlite/messages/MessagesDatabase.ts"
import type { BrokerHandlers, OpenBroker, Publication } from "../../src/ports/MessageBroker.ts"
import type { AgentRow } from "../../src/ports/MessageStore.ts"
import type { Name } from "../../src/schemas/Ids.ts"
import type { TopicRole } from "../../src/schemas/TopicRights.ts"

/** Below it are all topics. */
export const root = "mf2c"
type Success<A> = A extends Effect.Effect<infer S, infer _E, infer _R> ? S : never
const openMessages = (folder: string) => openInProcess(messagesDatabase, join(folder, "messages.db"))

/** A broker over a folder, and what it told. */
export class Bench {
  readonly folder = mkdtempSync(join(tmpdir(), "postern-broker-"))
  readonly received: Array<Publication> = []
  readonly refused: Array<string> = []
  readonly presence: Array<string> = []
  readonly clients: Array<MqttClient> = []
  readonly upgrades = new MqttUpgrades()
  private readonly http = createServer()
  broker!: OpenBroker
  private scope: Scope.Closeable | undefined
  /** What takes a publication; replaced by tests. */
  take: (publication: Publication) => Effect.Effect<void> = () => Effect.void
  /** What a call to the database waits for; replaced by tests. */
  before: (method: string) => Effect.Effect<void> = () => Effect.void
  /** What happens between a call's work and its answer; replaced by tests. */
  after: (method: string) => Effect.Effect<void> = () => Effect.void
  database!: Success<ReturnType<typeof openMessages>>

  private readonly handlers: BrokerHandlers = {
    authenticate: (_name, password) => {
      const role = new TextDecoder().decode(password)
      return Effect.succeed(["agent", "stranger"].includes(role) ? (role as TopicRole) : null)
    },
    received: (publication) =>
      Effect.suspend(() => {
        this.received.push(publication)
        return this.take(publication)
      }),
    presence: (name, connected) => Effect.sync(() => void this.presence.push(`${name} ${connected}`)),
    refused: (name, reason) => Effect.sync(() => void this.refused.push(`${name} ${reason}`))
  }

  async open(queuePackets = 1_000, maximumConnections = 50): Promise<void> {
    const scope = Effect.runSync(Scope.make())
    this.scope = scope
    this.broker = await Effect.runPromise(
      Effect.gen({ self: this }, function* () {
        const database = yield* openMessages(this.folder)
        this.database = database
        return yield* embeddedBroker({
          listen: { host: "127.0.0.1", port: 0 },
          upgrades: this.upgrades,
          topicRoot: root,
          maximumConnections,
          queuePackets,
          database: {
            call: (method, ...args) =>
              this.before(method).pipe(
                Effect.andThen(Effect.suspend(() => database.call(method, ...args))),
                Effect.tap(() => this.after(method))
              )
          }
        })(this.handlers)
      }).pipe(Scope.provide(scope))
    )
  }

  /** Broker services have come to know an agent. */
  async know(agent: string): Promise<void> {
    const row: AgentRow = {
      agent: agent as Name,
      device: "" as AgentRow["device"],
      signingKey: "" as AgentRow["signingKey"],
      agreement: { key: "", version: 1 },
      visible: true,
      edgeDevices: [],
      session: "" as AgentRow["session"],
      status: "C",
      statusAtMs: 0,
      shakenAtMs: 0
    }
    await Effect.runPromise(this.database.call("putAgent", row))
  }

  /** An HTTP server that hands everything over. */
  async web(): Promise<string> {
    this.http.on("upgrade", (request, socket, head) => {
      if (!this.upgrades.hand(request, socket, head)) socket.destroy()
    })
    await new Promise<void>((done) => this.http.listen(0, "127.0.0.1", done))
    return `ws://127.0.0.1:${(this.http.address() as AddressInfo).port}`
  }

  async close(): Promise<void> {
    this.http.close()
    for (const client of this.clients.splice(0)) await client.endAsync(true)
    if (this.scope !== undefined) await Effect.runPromise(Scope.close(this.scope, Exit.void))
    this.scope = undefined
  }

  async client(
    name: string,
    options: {
      clean?: boolean
      role?: string
      web?: boolean
      will?: { topic: string; text: string; qos?: 0 | 1 | 2 }
    } = {}
  ) {
    const { clean = false, role = "agent", web = false, will } = options
    const url = web ? await this.web() : (this.broker.addresses[0] as string)
    const client = await mqtt.connectAsync(url, {
      clientId: name,
      username: name,
      password: role,
      clean,
      ...(will === undefined
        ? {}
        : { will: { topic: will.topic, payload: Buffer.from(will.text), qos: will.qos ?? 1 } }),
      reconnectPeriod: 0
    })
    client.on("error", () => undefined)
    this.clients.push(client)
    return client
  }

  /** Ends it, and leaves nothing behind. */
  async remove(): Promise<void> {
    await this.close()
    rmSync(this.folder, { recursive: true })
  }
}

/** What a client is told, from now on. */
export const textsOf = (client: MqttClient): Array<string> => {
  const texts: Array<string> = []
  client.on("message", (_topic, payload) => void texts.push(payload.toString()))
  return texts
}

/**
 * The MQTT broker within the server: aedes (MQTT 3.1.1) over TCP and WebSocket, its sessions in the messages database.
 * Rights are those of `schemas/TopicRights`. Everything is bounded: packets, queues, connections, retained messages, and
 * what a slow reader may hold back.
 *
 * @module
 */
import { createServer as createHttpServer } from "node:http"
import { type AddressInfo, createServer, type Server, type Socket } from "node:net"
import type { Duplex } from "node:stream"
import { Aedes, type AuthenticateError, type Client, type PublishPacket } from "aedes"
import { Deferred, Effect, Schema, type Scope } from "effect"
import mqemitter from "mqemitter"
import { createWebSocketStream, WebSocketServer } from "ws"
import {
  BrokerError,
  type BrokerHandlers,
  type BrokerRefusal,
  type OpenBroker
} from "../../ports/MessageBroker.ts"
import { MessageLimits } from "../../schemas/Message.ts"
import { mayRead, mayWrite, type TopicRole } from "../../schemas/TopicRights.ts"
import { AgentName, brokerServices } from "../../schemas/Topics.ts"
import { errorText } from "../files/AtomicFile.ts"
import type { DatabaseHost } from "../sqlite/Database.ts"
import type { MqttMethods } from "../sqlite/messages/MqttRows.ts"
import { SessionStore } from "./SessionStore.ts"

export interface EmbeddedBrokerOptions {
  readonly host: string
  /** 0 takes a free one, and the same again at the next opening. */
  readonly port: number
  /** For MQTT over WebSocket; null: none. */
  readonly webSocketPort: number | null
  readonly topicRoot: string
  readonly maximumConnections: number
  /** Packets that wait for one agent. */
  readonly queuePackets: number
  readonly database: DatabaseHost<MqttMethods>
}

/** The fixed header and the topic come on top of what is carried. */
const packetBytes = MessageLimits.wireBytes + 1024
/** What a connection may have unread before it is cut; its session keeps what it did not acknowledge. */
const unreadBytes = 4 * 1024 * 1024
const connectTimeoutMs = 10_000
const heartbeatMs = 15_000
/** Nobody may subscribe to it: what is refused goes there, since MQTT 3.1.1 can refuse only by cutting the connection. */
const nowhere = "$postern/refused"

/**
 * Hands messages to their readers without waiting for them: otherwise a reader that reads nothing would hold up whoever
 * publishes, and a hundred of them the whole broker.
 */
const makeEmitter = () => {
  const emitter = mqemitter({ concurrency: 0, matchEmptyLevels: true })
  const emit = emitter.emit.bind(emitter)
  emitter.emit = (message, done) => {
    emit(message, () => undefined)
    if (done !== undefined) setImmediate(done)
    return emitter
  }
  return emitter
}

const isAgentName = Schema.is(AgentName)

interface Standing {
  readonly name: AgentName
  readonly role: TopicRole
}

const refusal = (): AuthenticateError =>
  Object.assign(new Error("not authorized"), { returnCode: 5 }) as AuthenticateError

type Fork = <A, E>(effect: Effect.Effect<A, E>) => Promise<A>

/** Who is connected as what, and the answers to aedes's questions. */
class Doorkeeper {
  private readonly standings = new WeakMap<Client, Standing>()
  private readonly handlers: BrokerHandlers
  private readonly root: string
  private readonly fork: Fork
  private readonly maximumConnections: number
  private connections = 0

  constructor(handlers: BrokerHandlers, options: EmbeddedBrokerOptions, fork: Fork) {
    this.handlers = handlers
    this.root = options.topicRoot
    this.maximumConnections = options.maximumConnections
    this.fork = fork
  }

  standing(client: Client | null): Standing | undefined {
    return client === null ? undefined : this.standings.get(client)
  }

  private refuse(name: AgentName | null, reason: BrokerRefusal): void {
    void this.fork(this.handlers.refused(name, reason))
  }

  readonly authenticate = (
    client: Client,
    username: string | undefined,
    password: Buffer | undefined,
    done: (error: AuthenticateError | null, success: boolean | null) => void
  ): void => {
    const name = client.id
    if (!isAgentName(name) || name === brokerServices || username !== name || password === undefined) {
      this.refuse(null, "bad_credentials")
      return done(refusal(), false)
    }
    if (this.connections >= this.maximumConnections) {
      this.refuse(name, "too_many")
      return done(refusal(), false)
    }
    const judge = this.handlers.authenticate(name, new Uint8Array(password))
    this.fork(judge).then(
      (role) => {
        if (role === null) return done(refusal(), false)
        this.standings.set(client, { name, role })
        done(null, true)
      },
      () => done(refusal(), false)
    )
  }

  /** Decides what becomes of a publication; ends when it is safe to acknowledge it. */
  readonly admit = (client: Client | null, packet: PublishPacket): Promise<void> => {
    const { name, role } = this.standing(client) ?? this.willOf(packet)
    const isOurs = packet.topic.startsWith(`${this.root}/${brokerServices}/`)
    const isOwn = packet.topic.startsWith(`${this.root}/${name}/public/`)
    const refused = !mayWrite(role, name, this.root, packet.topic)
      ? "not_permitted"
      : packet.payload.length > MessageLimits.wireBytes
        ? "too_large"
        : undefined
    // What is kept for those who come later is its sender's own to say.
    if (!isOwn) packet.retain = false
    if (refused !== undefined) {
      packet.topic = nowhere
      this.refuse(name, refused)
      return Promise.resolve()
    }
    if (!isOurs) return Promise.resolve()
    const payload = Uint8Array.from(
      typeof packet.payload === "string" ? Buffer.from(packet.payload) : packet.payload
    )
    return this.fork(this.handlers.received({ from: name, role, topic: packet.topic, payload }))
  }

  /** A will is published after its owner's connection; the store knows whose it is. */
  private willOf(packet: PublishPacket): Standing {
    const { clientId } = packet as { clientId?: unknown }
    return isAgentName(clientId) && clientId !== brokerServices
      ? { name: clientId, role: "agent" }
      : { name: brokerServices, role: "stranger" }
  }

  mayRead(client: Client, filter: string): boolean {
    const standing = this.standing(client)
    const may = standing !== undefined && mayRead(standing.role, standing.name, this.root, filter)
    if (!may) this.refuse(standing?.name ?? null, "not_permitted")
    return may
  }

  presence(client: Client, connected: boolean): void {
    const standing = this.standing(client)
    this.connections += connected ? 1 : -1
    if (standing !== undefined) void this.fork(this.handlers.presence(standing.name, connected))
  }
}

/** Cuts a connection that sends packets larger than any of ours, or does not read what it is sent. */
const holdToBounds = (client: Client, conn: Duplex): void => {
  const parser = (client as unknown as { readonly _parser: { readonly _list: { readonly length: number } } })
    ._parser
  conn.on("readable", () => {
    if (parser._list.length > packetBytes) conn.destroy()
  })
}

const isSlow = (client: Client): boolean => (client.conn as Duplex).writableLength > unreadBytes

const makeAedes = async (store: SessionStore, door: Doorkeeper): Promise<Aedes> => {
  const broker = await Aedes.createBroker({
    persistence: store,
    mq: makeEmitter(),
    connectTimeout: connectTimeoutMs,
    heartbeatInterval: heartbeatMs,
    drainTimeout: 0,
    maxTopicLevels: 16,
    authenticate: (client, username, password, done) => door.authenticate(client, username, password, done),
    authorizePublish: (client, packet, done) => {
      door.admit(client, packet).then(
        () => done(null),
        // Not acknowledged, so that its sender sends it again.
        (error) => done(error instanceof Error ? error : new Error(String(error)))
      )
    },
    authorizeSubscribe: (client, subscription, done) =>
      done(
        null,
        door.mayRead(client, subscription.topic)
          ? { ...subscription, qos: subscription.qos === 0 ? 0 : 1 }
          : null
      ),
    authorizeForward: (client, packet) => {
      if (isSlow(client)) client.conn.destroy()
      return packet
    }
  })
  return broker
}

const listening = (server: Server, host: string, port: number): Effect.Effect<AddressInfo, BrokerError> =>
  Effect.callback((resume) => {
    const failed = (error: Error) =>
      resume(Effect.fail(new BrokerError({ reason: `cannot listen on ${host}:${port}: ${error.message}` })))
    server.once("error", failed)
    server.listen({ host, port }, () => {
      server.off("error", failed)
      resume(Effect.succeed(server.address() as AddressInfo))
    })
  })

const hostOf = ({ address, family, port }: AddressInfo): string =>
  `${family === "IPv6" ? `[${address}]` : address}:${port}`

/** A listener for as long as the scope is open; its connections end with it. */
const door = (server: Server, host: string, port: number) =>
  Effect.acquireRelease(
    Effect.gen(function* () {
      const sockets = new Set<Socket>()
      server.on("connection", (socket: Socket) => {
        sockets.add(socket)
        socket.once("close", () => sockets.delete(socket))
      })
      const address = yield* listening(server, host, port)
      return { sockets, address }
    }),
    ({ sockets }) =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        for (const socket of sockets) socket.destroy()
      })
  )

const openDoors = (broker: Aedes, options: EmbeddedBrokerOptions, ports: [number, number]) =>
  Effect.gen(function* () {
    const take = (conn: Duplex): void => {
      conn.on("error", () => conn.destroy())
      holdToBounds(broker.handle(conn), conn)
    }
    const plain = createServer((socket) => {
      socket.setNoDelay(true)
      take(socket)
    })
    plain.maxConnections = options.maximumConnections
    const tcp = yield* door(plain, options.host, ports[0])
    ports[0] = tcp.address.port
    if (options.webSocketPort === null) return [`mqtt://${hostOf(tcp.address)}`]
    const http = createHttpServer((_request, response) => response.writeHead(426).end())
    http.maxConnections = options.maximumConnections
    const sockets = new WebSocketServer({
      server: http,
      maxPayload: packetBytes,
      handleProtocols: (offered) => (offered.has("mqtt") ? "mqtt" : false)
    })
    sockets.on("connection", (socket) => take(createWebSocketStream(socket)))
    const web = yield* door(http, options.host, ports[1])
    ports[1] = web.address.port
    return [`mqtt://${hostOf(tcp.address)}`, `ws://${hostOf(web.address)}`]
  })

const publishTo =
  (broker: Aedes, store: SessionStore): OpenBroker["publish"] =>
  (topic, payload, options = {}) =>
    Effect.callback((resume) => {
      const packet: PublishPacket = {
        cmd: "publish",
        topic,
        payload: Buffer.from(payload),
        qos: 1,
        retain: options.retain ?? false,
        dup: false
      }
      store.subscriptionsByTopic(topic).then(
        (subscriptions) =>
          broker.publish(packet, (error) =>
            resume(
              error == null
                ? Effect.succeed(subscriptions.length > 0)
                : Effect.fail(new BrokerError({ reason: error.message }))
            )
          ),
        (error) => resume(Effect.fail(new BrokerError({ reason: errorText(error) })))
      )
    })

const failing = (what: string) => (error: unknown) =>
  new BrokerError({ reason: `${what}: ${errorText(error)}` })

/** Opens the broker. A second opening listens on the same ports. */
export const embeddedBroker = (options: EmbeddedBrokerOptions) => {
  const ports: [number, number] = [options.port, options.webSocketPort ?? 0]
  return (handlers: BrokerHandlers): Effect.Effect<OpenBroker, BrokerError, Scope.Scope> =>
    Effect.gen(function* () {
      const ended = yield* Deferred.make<string>()
      const run = Effect.runPromiseWith(yield* Effect.context<never>())
      const keeper = new Doorkeeper(handlers, options, run)
      const store = new SessionStore({
        host: options.database,
        run,
        queuePackets: options.queuePackets,
        onDropped: (packets) =>
          void run(Effect.logWarning(`${packets} messages were dropped from full queues`))
      })
      const broker = yield* Effect.acquireRelease(
        Effect.tryPromise({ try: () => makeAedes(store, keeper), catch: failing("cannot start") }),
        (open) => Effect.callback<void>((resume) => open.close(() => resume(Effect.void)))
      )
      broker.on("client", (client) => keeper.presence(client, true))
      broker.on("clientDisconnect", (client) => {
        store.disconnected(client.id)
        keeper.presence(client, false)
      })
      ;(broker as unknown as NodeJS.EventEmitter).on("error", (error: Error) =>
        Deferred.doneUnsafe(ended, Effect.succeed(error.message))
      )
      const addresses = yield* openDoors(broker, options, ports)
      const clients = () => (broker as unknown as { clients: Record<string, Client> }).clients
      return {
        addresses,
        publish: publishTo(broker, store),
        expel: (name) =>
          Effect.tryPromise({
            try: async () => {
              await new Promise<void>((done) => {
                const client = clients()[name]
                if (client === undefined) done()
                else client.close(done)
              })
              await store.forget(name)
            },
            catch: failing(`cannot expel ${name}`)
          }),
        connected: Effect.sync(() => Object.keys(clients())),
        ended: Deferred.await(ended)
      }
    })
}

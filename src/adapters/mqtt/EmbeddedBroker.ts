/**
 * The MQTT broker within the server: aedes (MQTT 3.1.1) over TCP and WebSocket, its sessions in the messages database.
 * Rights are those of `schemas/TopicRights`. Everything is bounded: packets, queues, connections, retained messages, and
 * what a slow reader may hold back.
 *
 * @module
 */
import { type AddressInfo, createServer, type Server, type Socket } from "node:net"
import type { Duplex } from "node:stream"
import { Aedes, type Client, type PublishPacket } from "aedes"
import { Deferred, Effect, type Scope } from "effect"
import mqemitter from "mqemitter"
import { createWebSocketStream, WebSocketServer } from "ws"
import { BrokerError, type BrokerHandlers, type OpenBroker } from "../../ports/MessageBroker.ts"
import { Limits } from "../../schemas/Limits.ts"
import { errorText } from "../files/AtomicFile.ts"
import type { DatabaseHost } from "../sqlite/Database.ts"
import type { MqttMethods } from "../sqlite/messages/MqttRows.ts"
import { holdToBounds, packetBytes } from "./ConnectionBounds.ts"
import { Doorkeeper } from "./Doorkeeper.ts"
import type { MqttUpgrades } from "./MqttUpgrades.ts"
import { SessionStore } from "./SessionStore.ts"

export interface EmbeddedBrokerOptions {
  /** Where plain TCP is taken; null: nowhere. Of port 0 it takes a free one, and the same again at the next opening. */
  readonly listen: { readonly host: string; readonly port: number } | null
  /** Where MQTT over WebSocket comes from. */
  readonly upgrades: MqttUpgrades
  readonly topicRoot: string
  readonly maximumConnections: number
  /** Packets that wait for one agent. */
  readonly queuePackets: number
  readonly database: DatabaseHost<MqttMethods>
}

/** What a connection may have unread before it is cut; its session keeps what it did not acknowledge. */
const unreadBytes = 4 * 1024 * 1024
const connectTimeoutMs = 10_000
/** Wills that were left over by an earlier life of the broker are published after four of these. */
const heartbeatMs = 5_000
/** Whoever is silent for longer, and half as long again, is taken for gone; clients must promise a shorter one. */
const keepaliveLimitSeconds = 900

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

/**
 * aedes takes a packet for one that came before when its number is lower than the last one's. Packets overtake each other
 * on their way through the database, so that would withhold some of them; whoever gets one twice knows it by its id.
 */
const takeAllNumbers = (client: Client): void => {
  const none = new Proxy<Record<string, number>>({}, { get: () => undefined, set: () => true })
  Object.assign(client, { duplicates: none })
}

type Deliver = (packet: { readonly qos: number; readonly retain: boolean }, done: () => void) => void

/**
 * Holds back what comes for a session while its connection is given the queue, where it stands already. What is retained and
 * what is for a clean session stands in none. (Not by `authorizeForward`: aedes asks that for packets of the queue as well,
 * and takes those from the queue that it does not let through; and of QoS 0, for which nothing is queued.)
 */
const keepOrder = (client: Client, store: SessionStore): void => {
  const delivering = client as unknown as { deliverQoS: Deliver }
  const deliver = delivering.deliverQoS
  delivering.deliverQoS = (packet, done) => {
    const isQueued = packet.qos > 0 && !packet.retain && !client.clean
    if (!isQueued || store.mayForward(client)) deliver(packet, done)
    else setImmediate(done)
  }
}

/** Before its CONNACK a client must get nothing (MQTT 3.1.1, 3.2); what waits in its queue comes behind it. */
const isGreeted = (client: Client): boolean =>
  (client as unknown as { readonly connackSent: boolean }).connackSent

const isSlow = (client: Client): boolean => (client.conn as Duplex).writableLength > unreadBytes

const makeAedes = async (store: SessionStore, door: Doorkeeper): Promise<Aedes> => {
  const broker = await Aedes.createBroker({
    persistence: store,
    mq: makeEmitter(),
    connectTimeout: connectTimeoutMs,
    heartbeatInterval: heartbeatMs,
    drainTimeout: 0,
    maxTopicLevels: Limits.messagingTopicLevels,
    keepaliveLimit: keepaliveLimitSeconds,
    preConnect: (client, packet, done) => {
      door.asks(client, packet)
      done(null, true)
    },
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
      return isGreeted(client) ? packet : null
    }
  })
  door.broker = broker
  return broker
}

/** aedes makes a connection known that ended while it was set up, and would never forget it nor what it listens to. */
const forgetGone = (broker: Aedes, client: Client): void => {
  const { subscriptions } = client as unknown as { readonly subscriptions: Readonly<Record<string, unknown>> }
  const packet = { cmd: "unsubscribe" as const, unsubscriptions: Object.keys(subscriptions) }
  client.unsubscribe(packet as Parameters<Client["unsubscribe"]>[0], () => undefined)
  ;(broker as unknown as { readonly unregisterClient: (client: Client) => void }).unregisterClient(client)
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

/** Takes what HTTP doors hand over, for as long as the scope is open. */
const takeUpgrades = (upgrades: MqttUpgrades, take: (conn: Duplex) => void) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const sockets = new WebSocketServer({
        noServer: true,
        maxPayload: packetBytes,
        handleProtocols: (offered) => (offered.has("mqtt") ? "mqtt" : false)
      })
      const close = upgrades.open((request, socket, head) =>
        sockets.handleUpgrade(request, socket, head, (webSocket) => take(createWebSocketStream(webSocket)))
      )
      return { sockets, close }
    }),
    ({ close, sockets }) =>
      Effect.sync(() => {
        close()
        for (const socket of sockets.clients) socket.terminate()
      })
  )

interface Parts {
  readonly broker: Aedes
  readonly keeper: Doorkeeper
  readonly store: SessionStore
}

/** Opens the broker's ways in; gives what it is reached by, but for the HTTP doors. */
const openDoors = (
  { broker, keeper, store }: Parts,
  options: EmbeddedBrokerOptions,
  known: { port: number }
) =>
  Effect.gen(function* () {
    const departed = (client: Client): void => {
      if (keeper.departed(client)) store.disconnected(client.id)
    }
    const take = (conn: Duplex): void => {
      conn.on("error", () => conn.destroy())
      const client = broker.handle(conn)
      takeAllNumbers(client)
      keepOrder(client, store)
      holdToBounds(client, conn, (asking) => keeper.askedTooMuch(asking))
      // aedes tells of an end only where its own list knows the connection.
      conn.once("close", () => departed(client))
    }
    yield* takeUpgrades(options.upgrades, take)
    if (options.listen === null) return []
    const plain = createServer((socket) => {
      socket.setNoDelay(true)
      take(socket)
    })
    plain.maxConnections = options.maximumConnections + Limits.messagingStrangers
    const { address } = yield* door(plain, options.listen.host, known.port)
    known.port = address.port
    return [`mqtt://${hostOf(address)}`]
  })

const publishTo =
  (broker: Aedes, store: SessionStore): OpenBroker["publish"] =>
  (topic, payload, options = {}) =>
    Effect.callback((resume) => {
      const packet: PublishPacket = {
        cmd: "publish",
        topic,
        payload: Buffer.from(payload),
        qos: options.fleeting === true ? 0 : 1,
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

/** Opens the broker. A second opening listens on the same port. */
export const embeddedBroker = (options: EmbeddedBrokerOptions) => {
  const known = { port: options.listen?.port ?? 0 }
  return (handlers: BrokerHandlers): Effect.Effect<OpenBroker, BrokerError, Scope.Scope> =>
    Effect.gen(function* () {
      const ended = yield* Deferred.make<string>()
      const run = Effect.runPromiseWith(yield* Effect.context<never>())
      const keeper: Doorkeeper = new Doorkeeper(
        handlers,
        { ...options, hasRoom: (topic, bytes) => store.hasRoom(topic, bytes) },
        run
      )
      const store = new SessionStore({
        host: options.database,
        topicRoot: options.topicRoot,
        isGranted: (client, filter) => keeper.isGranted(client, filter),
        run,
        queuePackets: options.queuePackets,
        onDropped: (packets) =>
          void run(Effect.logWarning(`${packets} messages were dropped from full queues`)),
        sayWill: (will) => keeper.admit(null, will),
        onTrouble: (what) => void run(Effect.logError(what))
      })
      const broker = yield* Effect.acquireRelease(
        Effect.tryPromise({ try: () => makeAedes(store, keeper), catch: failing("cannot start") }),
        (open) => Effect.callback<void>((resume) => open.close(() => resume(Effect.void)))
      )
      broker.on("client", (client) => {
        if (!keeper.arrived(client)) forgetGone(broker, client)
      })
      broker.on("subscribe", (answers, client) => keeper.subscribed(client, answers))
      broker.on("unsubscribe", (filters, client) => keeper.unsubscribed(client, filters))
      ;(broker as unknown as NodeJS.EventEmitter).on("error", (error: Error) =>
        Deferred.doneUnsafe(ended, Effect.succeed(error.message))
      )
      const addresses = yield* openDoors({ broker, keeper, store }, options, known)
      return {
        addresses,
        publish: publishTo(broker, store),
        passwordFor: () => Effect.succeed(null),
        expel: (name) =>
          Effect.tryPromise({
            try: async () => {
              await new Promise<void>((done) => {
                const client = keeper.connection(name)
                if (client === undefined) done()
                else client.close(done)
              })
              await store.forget(name)
            },
            catch: failing(`cannot expel ${name}`)
          }),
        connected: Effect.sync(() => keeper.names()),
        ended: Deferred.await(ended)
      }
    })
}

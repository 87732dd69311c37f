/**
 * The port `MessageBus` on mqtt.js: MQTT 3.1.1 or 5 over a stream that others open, so that it goes whatever way the rest
 * of the program goes. Reconnecting is the agent's business, since every connection needs a proof of its own. mqtt.js is
 * loaded at the first connection: most devices are no agents.
 *
 * @module
 */
import type { Duplex } from "node:stream"
import { Cause, Deferred, Effect, Exit, Result, Scope } from "effect"
import type { ErrorWithReasonCode, IClientOptions, MqttClient } from "mqtt"
import { BusError, type BusLink, type BusOptions, type MessageBus } from "../../ports/MessageBus.ts"
import { MessageLimits } from "../../schemas/Message.ts"
import { errorText } from "../files/AtomicFile.ts"
import { makeBarrier } from "./Barrier.ts"
import { guardPackets } from "./PacketGuard.ts"

/** One way to the broker. */
export interface FoundBroker {
  /** 3.1.1 (4) or 5. */
  readonly mqtt: 4 | 5
  /** Opens a stream to it, which ends with the scope. */
  readonly dial: Effect.Effect<Duplex, { readonly message: string }, Scope.Scope>
}

/** The broker as it was found, and every way to it, best first. */
export interface FoundBus {
  readonly topicRoot: string
  /** Null: the agent's signed proof is the password. */
  readonly password: string | null
  readonly brokers: ReadonlyArray<FoundBroker>
}

export interface MqttBusOptions {
  readonly find: Effect.Effect<FoundBus, BusError>
  /** How long the broker may be silent before the connection counts as broken, in seconds. Default 30. */
  readonly keepaliveSeconds?: number
  /** How long connecting and subscribing may take. Default 30 s. */
  readonly answerMs?: number
  /** How long opening a stream may take: through Tor, several circuits are tried. Default 60 s. */
  readonly dialMs?: number
  /** How often it is tried whether there is room again for what was left with the broker. Default 30 s. */
  readonly roomMs?: number
}

/** Broker services try for a minute to make a publication safe. */
const publicationMs = 90_000
/** How long leaving may take before the connection is cut. */
const leaveMs = 500
/** For so long a broker of MQTT 5 keeps a session whose agent is away: as long as a message may live. */
const sessionSeconds = 30 * 86_400

/** What may come before a packet is whole: the largest of ours, and what a WebSocket brings in one piece with its end. */
const unreadBytes = 8 * MessageLimits.wireBytes

const unreachable = (reason: string) => new BusError({ code: "unreachable", reason })

/** Bad user name or password, and not authorised: of MQTT 3.1.1, then of 5. */
const refusals: ReadonlySet<number | undefined> = new Set([4, 5, 0x86, 0x87])

/** Server unavailable: of MQTT 3.1.1, then of 5, which can also say that the server is busy. */
const closed: ReadonlySet<number | undefined> = new Set([3, 0x88, 0x89])

const problemOf = (error: unknown): BusError => {
  const { code } = error as Partial<ErrorWithReasonCode>
  if (refusals.has(code))
    return new BusError({ code: "refused", reason: "it does not take this agent's credentials" })
  return unreachable(closed.has(code) ? "it takes no more connections at the moment" : errorText(error))
}

/** A callback of mqtt.js as an Effect; its error is the port's. */
const called = (
  work: (done: (error?: Error | null) => void) => void,
  errorOf: (error: Error) => BusError = problemOf
): Effect.Effect<void, BusError> =>
  Effect.callback((resume) => {
    work((error) => resume(error == null ? Effect.void : Effect.fail(errorOf(error))))
  })

/** From here on MQTT 5 says in an acknowledgement why something was not taken. */
const firstFailureCode = 0x80

/** A broker of MQTT 5 may refuse a single publication, as by its rights or a quota: the connection is good. */
const publicationErrorOf = (error: Error): BusError => {
  const { code } = error as Partial<ErrorWithReasonCode>
  return typeof code === "number" && code >= firstFailureCode
    ? new BusError({ code: "refused", reason: `it does not take this publication: ${errorText(error)}` })
    : problemOf(error)
}

const settingsOf = (
  { name, will }: BusOptions,
  broker: FoundBroker,
  password: string | Uint8Array,
  keepaliveSeconds: number
): IClientOptions => ({
  clientId: name,
  username: name,
  password: Buffer.from(password),
  clean: false,
  protocolVersion: broker.mqtt,
  ...(broker.mqtt === 5 ? { properties: { sessionExpiryInterval: sessionSeconds } } : {}),
  keepalive: keepaliveSeconds,
  reconnectPeriod: 0,
  resubscribe: false,
  queueQoSZero: false,
  will: { topic: will.topic, payload: Buffer.from(will.payload), qos: 1, retain: false }
})

/** mqtt.js's client alone: its own ways of connecting are never taken here. Loaders disagree on what its default is. */
const loadClient = Effect.promise(async (): Promise<typeof MqttClient> => {
  const { default: loaded } = await import("mqtt/lib/client")
  return "default" in loaded ? loaded.default : (loaded as typeof MqttClient)
})

/** mqtt.js keeps whatever the broker calls one packet until it is whole: up to 256 MiB. */
const boundUnread = (client: MqttClient, stream: Duplex): void => {
  let unread = 0
  stream.prependListener("data", (bytes: Uint8Array) => {
    unread += bytes.length
    if (unread > unreadBytes) client.emit("error", new Error(`${unread} bytes came without a whole packet`))
  })
  client.on("packetreceive", () => {
    unread = 0
  })
}

/** The client on a stream; it ends with the scope, and at once. */
const clientOn = (stream: Duplex, settings: IClientOptions) =>
  Effect.acquireRelease(
    Effect.map(loadClient, (Client) => {
      const client = new Client(() => stream as never, settings)
      guardPackets(client)
      boundUnread(client, stream)
      return client
    }),
    (client) =>
      Effect.callback<void>((resume) => void client.end(true, {}, () => resume(Effect.void))).pipe(
        Effect.timeoutOption(leaveMs),
        Effect.andThen(Effect.sync(() => stream.destroy()))
      )
  )

const connected = (client: MqttClient): Effect.Effect<void, BusError> =>
  Effect.callback((resume) => {
    client.once("connect", () => resume(Effect.void))
    client.once("error", (error) => resume(Effect.fail(problemOf(error))))
    client.once("close", () => resume(Effect.fail(unreachable("the connection was closed"))))
  })

const subscribed = (
  client: MqttClient,
  filters: ReadonlyArray<string>
): Effect.Effect<ReadonlyArray<string>, BusError> =>
  Effect.callback((resume) => {
    client.subscribe([...filters], { qos: 1 }, (error, _granted, packet) => {
      const answer = packet ?? (error as { packet?: typeof packet } | null)?.packet
      if (answer === undefined)
        return resume(error == null ? Effect.succeed([]) : Effect.fail(problemOf(error)))
      resume(Effect.succeed(filters.filter((_, index) => Number(answer.granted[index]) >= 0x80)))
    })
  })

/**
 * Hands on what comes. Set before anything can: a session that goes on brings its queue with the first packet. mqtt.js
 * passes over what failed, unacknowledged; only with a new connection does the broker bring it again.
 */
const handOn = (
  client: MqttClient,
  { hasRoom, received }: BusOptions,
  roomMs: number,
  end: (why: string) => Effect.Effect<void>
) =>
  Effect.gen(function* () {
    const scope = yield* Effect.scope
    const run = Effect.runForkWith(yield* Effect.context<never>())
    /**
     * Since something was left with the broker, it is asked for again when there is room. Not by what was left: a message
     * that has expired meanwhile is dealt with, room or none.
     */
    let hasLeft = false
    const untilRoom = Effect.sleep(roomMs).pipe(
      Effect.andThen(hasRoom),
      Effect.repeat({ until: (isThere) => isThere }),
      Effect.andThen(end("what was left with the broker is asked for again"))
    )
    const leave = Effect.suspend(() => {
      if (hasLeft) return Effect.void
      hasLeft = true
      return Effect.asVoid(Effect.forkIn(untilRoom, scope))
    })
    client.handleMessage = ({ payload, retain, topic }, done) => {
      const message = { topic, payload: new Uint8Array(Buffer.from(payload)), retained: retain }
      const failed = Effect.sync(() => done(new Error("it was not kept")))
      run(
        received(message).pipe(
          Effect.matchCauseEffect({
            onSuccess: () => Effect.sync(() => done()),
            onFailure: (cause) => {
              const { reasons } = cause
              const isLeft = reasons.every((reason) => Cause.isFailReason(reason) && reason.error.isLeft)
              const cut = end(`a message was not kept: ${errorText(Cause.squash(cause))}`)
              return Effect.andThen(isLeft ? leave : cut, failed)
            }
          })
        )
      )
    }
  })

const inTime = (timeoutMs: number, what: string) =>
  Effect.timeoutOrElse({
    duration: timeoutMs,
    orElse: () => Effect.fail(unreachable(`${what} was not answered within ${timeoutMs} ms`))
  })

type Bounds = Required<Omit<MqttBusOptions, "find">>

/** One connection, by one way. */
const open = (broker: FoundBroker, password: string | null, options: BusOptions, bounds: Bounds) =>
  Effect.gen(function* () {
    const { answerMs, dialMs, keepaliveSeconds, roomMs } = bounds
    const stream = yield* broker.dial.pipe(
      Effect.mapError((error) => unreachable(error.message)),
      inTime(dialMs, "the connection")
    )
    const shown = password ?? (yield* options.password)
    const client = yield* clientOn(stream, settingsOf(options, broker, shown, keepaliveSeconds))
    const ended = yield* Deferred.make<string>()
    let reason = "the connection was closed"
    client.on("error", (error) => {
      reason = error.message
    })
    const over = (): void => void Deferred.doneUnsafe(ended, Effect.succeed(reason))
    client.once("close", over)
    // Whatever mqtt.js makes of it, a connection without its stream has ended.
    stream.once("close", over)
    if (stream.destroyed) over()
    const end = (why: string) =>
      Effect.sync(() => {
        reason = why
        stream.destroy()
      })
    // What was under way when the connection ended is never answered.
    const cutOff = Effect.flatMap(Deferred.await(ended), (why) => Effect.fail(unreachable(why)))
    const whileUp = <A>(work: Effect.Effect<A, BusError>) => Effect.raceFirst(work, cutOff)
    yield* handOn(client, options, roomMs, end)
    yield* whileUp(connected(client)).pipe(inTime(answerMs, "CONNECT"))
    // A broker with passwords is not our own: it may acknowledge first and write to disk then.
    const barrier = password === null ? undefined : makeBarrier(client)
    const saved = barrier === undefined ? Effect.void : called(barrier)
    // What is sent again on the same connection counts as a replay: it has to be the next one.
    const giveUp = Effect.suspend(() => {
      const why = `a publication was not acknowledged within ${publicationMs} ms`
      return Effect.andThen(end(why), Effect.fail(unreachable(why)))
    })
    return {
      subscribe: (filters) => whileUp(subscribed(client, filters)).pipe(inTime(answerMs, "SUBSCRIBE")),
      publish: (topic, payload, { retain = false } = {}) =>
        whileUp(
          called(
            (done) => client.publish(topic, Buffer.from(payload), { qos: 1, retain }, done),
            publicationErrorOf
          ).pipe(Effect.andThen(saved))
        ).pipe(Effect.timeoutOrElse({ duration: publicationMs, orElse: () => giveUp })),
      leave: Effect.callback<void>((resume) => void client.end(false, {}, () => resume(Effect.void))).pipe(
        // mqtt.js would wait for the end of a connection that has ended.
        Effect.raceFirst(Deferred.await(ended)),
        Effect.timeoutOption(leaveMs),
        Effect.asVoid
      ),
      ended: Deferred.await(ended)
    } satisfies BusLink
  })

/** Tries the ways in turn; whoever is turned away by the broker tries no other. */
const openFirst = ({ brokers, password }: FoundBus, options: BusOptions, bounds: Bounds) =>
  Effect.gen(function* () {
    const scope = yield* Effect.scope
    let failure = unreachable("no way to it is known")
    for (const broker of brokers) {
      const own = yield* Scope.fork(scope)
      const attempt = open(broker, password, options, bounds).pipe(
        Scope.provide(own),
        Effect.onInterrupt(() => Scope.close(own, Exit.void))
      )
      const link = yield* Effect.result(attempt)
      if (Result.isSuccess(link)) return link.success
      yield* Scope.close(own, Exit.void)
      failure = link.failure
      if (failure.code === "refused") break
    }
    return yield* failure
  })

export const mqttBus = ({
  answerMs = 30_000,
  dialMs = 60_000,
  find,
  keepaliveSeconds = 30,
  roomMs = 30_000
}: MqttBusOptions): MessageBus["Service"] => ({
  find: Effect.map(find, (found) => ({
    topicRoot: found.topicRoot,
    connect: (options: BusOptions): Effect.Effect<BusLink, BusError, Scope.Scope> =>
      openFirst(found, options, { answerMs, dialMs, keepaliveSeconds, roomMs })
  }))
})

/**
 * The port `MessageBus` on mqtt.js: MQTT 3.1.1 over a stream that others open, so that it goes whatever way the rest of the
 * program goes. Reconnecting is the agent's business, since every connection needs a proof of its own.
 *
 * @module
 */
import type { Duplex } from "node:stream"
import { Deferred, Effect, type Scope } from "effect"
import { type ErrorWithReasonCode, MqttClient } from "mqtt"
import { BusError, type BusLink, type BusOptions, type MessageBus } from "../../ports/MessageBus.ts"
import { errorText } from "../files/AtomicFile.ts"

export interface MqttBusOptions {
  /** Opens a stream to the broker. */
  readonly dial: Effect.Effect<Duplex, { readonly message: string }>
  /** How long the broker may be silent before the connection counts as broken, in seconds. Default 30. */
  readonly keepaliveSeconds?: number
  /** How long connecting and subscribing, and each publication, may take. Default 30 s. */
  readonly answerMs?: number
}

const unreachable = (reason: string) => new BusError({ code: "unreachable", reason })

const problemOf = (error: unknown): BusError => {
  const { code } = error as Partial<ErrorWithReasonCode>
  return code === 4 || code === 5
    ? new BusError({ code: "refused", reason: "it does not take this agent's credentials" })
    : unreachable(errorText(error))
}

/** A callback of mqtt.js as an Effect; its error is the port's. */
const called = (work: (done: (error?: Error | null) => void) => void): Effect.Effect<void, BusError> =>
  Effect.callback((resume) => {
    work((error) => resume(error == null ? Effect.void : Effect.fail(problemOf(error))))
  })

const settingsOf = ({ name, password, will }: BusOptions, keepaliveSeconds: number) => ({
  clientId: name,
  username: name,
  password: Buffer.from(password),
  clean: false,
  protocolVersion: 4 as const,
  keepalive: keepaliveSeconds,
  reconnectPeriod: 0,
  resubscribe: false,
  queueQoSZero: false,
  will: { topic: will.topic, payload: Buffer.from(will.payload), qos: 1 as const, retain: false }
})

/** The client on a stream; it ends with the scope, and at once. */
const clientOn = (stream: Duplex, options: BusOptions, keepaliveSeconds: number) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const client = new MqttClient(() => stream as never, settingsOf(options, keepaliveSeconds))
      // Without a listener an error would end the program; what it means is told by "close".
      client.on("error", () => undefined)
      return client
    }),
    (client) => Effect.callback<void>((resume) => void client.end(true, {}, () => resume(Effect.void)))
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
      resume(Effect.succeed(filters.filter((_, index) => answer.granted[index] === 128)))
    })
  })

export const mqttBus = ({
  answerMs = 30_000,
  dial,
  keepaliveSeconds = 30
}: MqttBusOptions): MessageBus["Service"] => {
  const inTime = (what: string) =>
    Effect.timeoutOrElse({
      duration: answerMs,
      orElse: () => Effect.fail(unreachable(`${what} was not answered within ${answerMs} ms`))
    })
  return {
    connect: (options: BusOptions): Effect.Effect<BusLink, BusError, Scope.Scope> =>
      Effect.gen(function* () {
        const run = Effect.runPromiseWith(yield* Effect.context<never>())
        const stream = yield* dial.pipe(
          Effect.mapError((error) => unreachable(error.message)),
          inTime("the connection")
        )
        const client = yield* clientOn(stream, options, keepaliveSeconds)
        const ended = yield* Deferred.make<string>()
        let reason = "the connection was closed"
        client.on("error", (error) => {
          reason = error.message
        })
        client.once("close", () => Deferred.doneUnsafe(ended, Effect.succeed(reason)))
        // Set before anything can come: a session that goes on brings its queue with the first packet.
        client.handleMessage = ({ payload, retain, topic }, done) => {
          const message = { topic, payload: new Uint8Array(Buffer.from(payload)), retained: retain }
          run(options.received(message)).then(
            () => done(),
            (error) => done(error instanceof Error ? error : new Error(errorText(error)))
          )
        }
        yield* connected(client).pipe(inTime("CONNECT"))
        return {
          subscribe: (filters) => subscribed(client, filters).pipe(inTime("SUBSCRIBE")),
          publish: (topic, payload, more = {}) =>
            called((done) =>
              client.publish(topic, Buffer.from(payload), { qos: 1, retain: more.retain ?? false }, done)
            ).pipe(inTime("a publication")),
          leave: Effect.callback<void>((resume) => void client.end(false, {}, () => resume(Effect.void))),
          ended: Deferred.await(ended)
        }
      })
  }
}

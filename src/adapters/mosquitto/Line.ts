/**
 * One connection of broker services to Mosquitto: MQTT 5, since only there an acknowledgement says whether anybody
 * subscribes. It lasts as long as its scope, and does not come again by itself.
 *
 * @module
 */
import { Deferred, Effect, type Scope } from "effect"
import type { ErrorWithReasonCode, IClientOptions, IPublishPacket, MqttClient } from "mqtt"
import { BrokerError } from "../../ports/MessageBroker.ts"
import { MessageLimits } from "../../schemas/Message.ts"
import { errorText } from "../files/AtomicFile.ts"
import { makeBarrier } from "../mqtt/Barrier.ts"
import { guardPackets } from "../mqtt/PacketGuard.ts"

export interface LineOptions {
  readonly address: string
  /** Certificates (PEM) that Mosquitto's must be vouched for by; null: those that Node knows. */
  readonly ca: string | null
  readonly user: string
  readonly password: string
}

export interface LineUse {
  readonly clientId: string
  /** Whether the session outlives the connection. */
  readonly lasting: boolean
  /** Takes what comes, one after the other; acknowledged when it has succeeded. */
  readonly received: (topic: string, payload: Uint8Array) => Promise<void>
}

export interface PublishOptions {
  readonly retain?: boolean
  readonly fleeting?: boolean
}

export interface Line {
  readonly subscribe: (filters: ReadonlyArray<string>) => Effect.Effect<void, BrokerError>
  /**
   * Ends when Mosquitto has it on disk: whether anybody subscribes. What is fleeting (QoS 0) goes to those who are there,
   * and Mosquitto queues it for nobody and does not say whether anybody was; it is waited for only where it is retained.
   */
  readonly publish: (
    topic: string,
    payload: Uint8Array,
    options?: PublishOptions
  ) => Effect.Effect<boolean, BrokerError>
  /** Ends with the connection, with the reason. */
  readonly ended: Effect.Effect<string>
}

const keepaliveSeconds = 30
const answerMs = 30_000
/** A session of broker services waits for them for so long as a message may live. */
const sessionSeconds = MessageLimits.lifetimeMs / 1_000
/** MQTT 5, 3.4.2.1. */
const noSubscribers = 0x10
/** Bad user name or password, not authorised: MQTT 5, then what 3.1.1 says. */
const refusals: ReadonlySet<number | undefined> = new Set([0x86, 0x87, 4, 5])

const fail = (reason: string) => new BrokerError({ reason })

const settingsOf = (options: LineOptions, use: LineUse): IClientOptions => ({
  clientId: use.clientId,
  username: options.user,
  password: options.password,
  protocolVersion: 5,
  clean: !use.lasting,
  properties: { sessionExpiryInterval: use.lasting ? sessionSeconds : 0 },
  keepalive: keepaliveSeconds,
  connectTimeout: answerMs,
  reconnectPeriod: 0,
  resubscribe: false,
  queueQoSZero: false,
  ...(options.ca === null ? {} : { ca: options.ca })
})

const problemOf = (error: unknown, { address, user }: LineOptions): BrokerError => {
  const { code } = error as Partial<ErrorWithReasonCode>
  return refusals.has(code)
    ? fail(
        `Mosquitto at ${address} does not take the user ${user} with this password: see messaging.mosquitto.user and password_file, and postern broker mosquitto-config`
      )
    : fail(`Mosquitto at ${address}: ${errorText(error) || "it was not reached"}`)
}

/** The client, before anything could come: it ends with the scope, and at once. */
const clientFor = (options: LineOptions, use: LineUse) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const { connect } = await import("mqtt")
      const client = connect(options.address, settingsOf(options, use))
      guardPackets(client)
      client.handleMessage = ({ payload, topic }, done) => {
        const bytes = new Uint8Array(Buffer.from(payload))
        use.received(topic, bytes).then(
          () => done(),
          (error) => {
            // It is not acknowledged, and comes again with the next connection.
            client.stream.destroy(new Error(`something that came was not kept: ${errorText(error)}`))
            done(new Error("it was not kept"))
          }
        )
      }
      return client
    }),
    (client) => Effect.callback<void>((resume) => void client.end(true, {}, () => resume(Effect.void)))
  )

/** Numbers of publications that nobody subscribes to, from their acknowledgement until they are asked for. */
const makeUnheard = (client: MqttClient) => {
  const unheard = new Set<number>()
  client.on("packetreceive", (packet) => {
    if (packet.cmd === "puback" && packet.reasonCode === noSubscribers && packet.messageId !== undefined)
      unheard.add(packet.messageId)
  })
  return (packet: IPublishPacket | undefined): boolean => unheard.delete(packet?.messageId ?? -1)
}

const connected = (client: MqttClient, options: LineOptions): Effect.Effect<void, BrokerError> =>
  Effect.callback((resume) => {
    client.once("connect", () => resume(Effect.void))
    client.once("error", (error) => resume(Effect.fail(problemOf(error, options))))
    client.once("close", () =>
      resume(Effect.fail(fail(`Mosquitto at ${options.address} was not reached, or hung up`)))
    )
  })

const inTime = (what: string) =>
  Effect.timeoutOrElse({
    duration: answerMs,
    orElse: () => Effect.fail(fail(`${what} was not answered within ${answerMs} ms`))
  })

/** Opens one for as long as the scope is open. */
export const openLine = (options: LineOptions, use: LineUse): Effect.Effect<Line, BrokerError, Scope.Scope> =>
  Effect.gen(function* () {
    const client = yield* clientFor(options, use)
    const ended = yield* Deferred.make<string>()
    let reason = "Mosquitto closed the connection"
    client.on("error", (error) => {
      reason = error.message
    })
    client.once("close", () => Deferred.doneUnsafe(ended, Effect.succeed(reason)))
    const wasUnheard = makeUnheard(client)
    const barrier = makeBarrier(client)
    yield* connected(client, options).pipe(inTime("CONNECT"))
    const cutOff = Effect.flatMap(Deferred.await(ended), (why) => Effect.fail(fail(why)))
    const whileUp = <A>(what: string, work: Effect.Effect<A, BrokerError>) =>
      Effect.raceFirst(work, cutOff).pipe(inTime(what))
    return {
      subscribe: (filters) =>
        whileUp(
          "SUBSCRIBE",
          Effect.callback((resume) => {
            // What was kept for those who come later is nothing that waits for an answer.
            client.subscribe([...filters], { qos: 1, rh: 2 }, (error) =>
              resume(
                error == null
                  ? Effect.void
                  : Effect.fail(
                      fail(
                        `Mosquitto lets ${options.user} not read ${filters.join(", ")}: ${error.message}. Its files are made by postern broker mosquitto-config, for this topic root`
                      )
                    )
              )
            )
          })
        ),
      publish: (topic, payload, { fleeting = false, retain = false } = {}) =>
        whileUp(
          "a publication",
          Effect.callback((resume) => {
            const qos = fleeting ? 0 : 1
            client.publish(topic, Buffer.from(payload), { qos, retain }, (error, packet) => {
              if (error != null) return resume(Effect.fail(problemOf(error, options)))
              const isHeard = fleeting || !wasUnheard(packet as IPublishPacket | undefined)
              if (fleeting && !retain) return resume(Effect.succeed(isHeard))
              barrier(() => resume(Effect.succeed(isHeard)))
            })
          })
        ),
      ended: Deferred.await(ended)
    }
  })

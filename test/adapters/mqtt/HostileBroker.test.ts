/** What answers as the broker may be anybody, for nothing of it is proved: it may end its connection, and nothing more. */
import { type AddressInfo, connect, createServer, type Socket } from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Result } from "effect"
import fc from "fast-check"
import { openLine } from "../../../src/adapters/mosquitto/Line.ts"
import { mqttBus } from "../../../src/adapters/mqtt/MqttBus.ts"
import { MessageLimits } from "../../../src/schemas/Message.ts"
import { property } from "../support/properties.ts"
import { asPi } from "./localBus.ts"

/** Gets what its client writes, piece by piece. */
type Play = (socket: Socket, bytes: Buffer, piece: number) => void

/** Answers whoever connects, for as long as the scope is open; gives its port. */
const brokerThat = (play: Play) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly port: number; readonly close: (done: () => void) => void }>((resume) => {
      const sockets = new Set<Socket>()
      const server = createServer((socket) => {
        sockets.add(socket)
        let piece = 0
        socket.on("error", () => undefined)
        socket.once("close", () => sockets.delete(socket))
        socket.on("data", (bytes) => play(socket, bytes, piece++))
      })
      const close = (done: () => void): void => {
        server.close(done)
        for (const socket of sockets) socket.destroy()
      }
      server.listen(0, "127.0.0.1", () =>
        resume(Effect.succeed({ port: (server.address() as AddressInfo).port, close }))
      )
    }),
    ({ close }) => Effect.callback<void>((resume) => close(() => resume(Effect.void)))
  ).pipe(Effect.map(({ port }) => port))

const busTo = (port: number, mqtt: 4 | 5 = 4) => {
  const dial = Effect.acquireRelease(
    Effect.sync(() => connect(port, "127.0.0.1").on("error", () => undefined)),
    (socket) => Effect.sync(() => void socket.destroy())
  )
  return mqttBus({ find: Effect.succeed({ topicRoot: "fleet", password: null, brokers: [{ mqtt, dial }] }) })
}

/** Connects as an agent that takes what comes like this. */
const open = (port: number, received: Effect.Effect<void> = Effect.void, mqtt: 4 | 5 = 4) =>
  Effect.flatMap(busTo(port, mqtt).find, ({ connect: come }) =>
    come({ ...asPi, hasRoom: Effect.succeed(true), received: () => received })
  )

/** What nobody caught, while the scope is open. */
const uncaught = Effect.acquireRelease(
  Effect.sync(() => {
    const errors: Array<Error> = []
    const note = (error: Error): void => void errors.push(error)
    process.on("uncaughtException", note)
    return { errors, note }
  }),
  ({ note }) => Effect.sync(() => void process.off("uncaughtException", note))
).pipe(Effect.map(({ errors }) => errors))

/** Whatever mqtt.js still does by itself is done. */
const turns = Effect.callback<void>((resume) => {
  const turn = (left: number): void => {
    if (left === 0) resume(Effect.void)
    else setImmediate(turn, left - 1)
  }
  turn(50)
})

const hex = (text: string) => Buffer.from(text.replaceAll(" ", ""), "hex")
const welcome = { 4: "20020000", 5: "2003000000" }
const release = "62020001"
const malformed = "60020001"
/** A message of QoS 0, which its agent takes long to take. */
const message = "3003000161"

describe("a broker that means harm, or hangs up at the wrong time,", () => {
  it.live("ends no agent by packets that are malformed", () =>
    Effect.gen(function* () {
      const errors = yield* uncaught
      const port = yield* brokerThat((socket) => socket.write(hex(`${welcome[4]} ${release} ${malformed}`)))
      assert.isTrue(Result.isFailure(yield* Effect.result(Effect.scoped(open(port)))))
      yield* turns
      assert.deepStrictEqual(errors, [])
    })
  )

  it.live("ends no server either", () =>
    Effect.gen(function* () {
      const errors = yield* uncaught
      const port = yield* brokerThat((socket) => socket.write(hex(`${welcome[5]} ${release} ${malformed}`)))
      const line = openLine(
        { address: `mqtt://127.0.0.1:${port}`, ca: null, user: "services", password: "secret" },
        { clientId: "services", lasting: true, received: async () => undefined }
      )
      assert.isTrue(Result.isFailure(yield* Effect.result(Effect.scoped(line))))
      yield* turns
      assert.deepStrictEqual(errors, [])
    })
  )

  it.live("ends no agent that is still at a message which came before", () =>
    Effect.gen(function* () {
      const errors = yield* uncaught
      for (const isAnswered of [true, false]) {
        const coming = yield* Deferred.make<void>()
        const kept = yield* Deferred.make<void>()
        const taking = yield* Deferred.make<void>()
        const brokers: Array<Socket> = []
        const port = yield* brokerThat((socket, bytes, piece) => {
          brokers[0] = socket
          if (piece === 0) return socket.write(hex(welcome[4]))
          // What the agent has published is acknowledged behind a message for it.
          const number = bytes.subarray(4 + bytes.readUInt16BE(2)).subarray(0, 2)
          const last = isAnswered ? `4002${number.toString("hex")}` : release
          return socket.write(hex(`${message} ${last}`))
        })
        yield* Effect.scoped(
          Effect.gen(function* () {
            const link = yield* open(
              port,
              Effect.andThen(Deferred.succeed(taking, undefined), Deferred.await(kept)).pipe(
                Effect.andThen(Deferred.succeed(coming, undefined))
              )
            )
            const published = yield* Effect.forkScoped(
              Effect.result(link.publish("fleet/bob/public", new Uint8Array(2)))
            )
            yield* Deferred.await(taking)
            brokers[0]?.destroy()
            yield* link.ended
            assert.isTrue(Result.isFailure(yield* Fiber.join(published)))
          })
        )
        yield* turns
        yield* Deferred.succeed(kept, undefined)
        yield* Deferred.await(coming)
        yield* turns
      }
      assert.deepStrictEqual(errors, [])
    })
  )

  it.live("is left at once where it hung up before a word was said", () =>
    Effect.gen(function* () {
      const port = yield* brokerThat(() => undefined)
      const dial = Effect.callback<Socket>((resume) => {
        const socket = connect(port, "127.0.0.1").once("close", () => resume(Effect.succeed(socket)))
        socket.once("connect", () => socket.destroy())
      })
      const { find } = mqttBus({
        find: Effect.succeed({ topicRoot: "fleet", password: null, brokers: [{ mqtt: 4, dial }] }),
        answerMs: 60_000
      })
      const come = Effect.flatMap(find, (door) =>
        door.connect({ ...asPi, hasRoom: Effect.succeed(true), received: () => Effect.void })
      )
      const given = yield* Effect.timeoutOption(Effect.result(Effect.scoped(come)), 30_000)
      assert.isTrue(given._tag === "Some" && Result.isFailure(given.value))
    })
  )

  it.live("is left where it sends what nobody asked for, or what is malformed", () =>
    Effect.gen(function* () {
      const said = [
        ["340500016100 01", "QoS 2"],
        [malformed, "header flag"]
      ] as const
      for (const [packets, why] of said) {
        const port = yield* brokerThat((socket, _bytes, piece) =>
          socket.write(hex(piece === 0 ? welcome[4] : packets))
        )
        const end = yield* Effect.scoped(
          Effect.gen(function* () {
            const link = yield* open(port)
            yield* Effect.forkScoped(Effect.ignore(link.subscribe(["fleet/pi/#"])))
            return yield* link.ended
          })
        )
        assert.include(end, why)
      }
    })
  )

  /** Writes pieces as fast as they are read, and hangs up behind the last one. */
  const pour = (socket: Socket, pieces: number, piece: Buffer): void => {
    if (pieces === 0) socket.end()
    else socket.write(piece, () => pour(socket, pieces - 1, piece))
  }

  it.live("has no agent keep what is no packet yet", () =>
    Effect.gen(function* () {
      const port = yield* brokerThat((socket, _bytes, piece) => {
        if (piece > 0) return
        // The longest that MQTT knows: 256 MiB.
        socket.write(hex(`${welcome[4]} 30ffffff7f 000161`))
        pour(socket, 32, Buffer.alloc(1024 * 1024))
      })
      const end = yield* Effect.scoped(Effect.flatMap(open(port), ({ ended }) => ended))
      assert.include(end, "without a whole packet")
    })
  )

  it.live("may send one of the largest messages after the other", () =>
    Effect.gen(function* () {
      const count = 40
      const body = Buffer.alloc(MessageLimits.wireBytes)
      const length = [0x83, 0x80, 0x10]
      const publish = Buffer.concat([Buffer.from([0x30, ...length, 0, 1, 0x61]), body])
      const port = yield* brokerThat((socket, _bytes, piece) => {
        if (piece > 0) return
        socket.write(hex(welcome[4]))
        pour(socket, count, publish)
      })
      let came = 0
      const end = yield* Effect.scoped(
        Effect.flatMap(
          open(
            port,
            Effect.sync(() => void came++)
          ),
          ({ ended }) => ended
        )
      )
      yield* turns
      assert.include(end, "closed")
      assert.strictEqual(came, count)
    })
  )

  /** Bodies of packets: with numbers, topics and properties that are there, cut off, or there twice. */
  const body = fc
    .array(
      fc.oneof(
        fc.nat(255).map((byte) => [byte]),
        fc.constantFrom([0, 1], [0, 1, 0x61], [0], [0, 0], [0x13, 0, 10], [0x22, 0, 9], [0x23, 0, 1])
      ),
      { maxLength: 6 }
    )
    .map((parts) => parts.flat())
  /** Each kind with the flags that it should have, more often than not. */
  const packet = fc
    .tuple(fc.nat(15), fc.option(fc.nat(15)), body, fc.boolean())
    .map(([kind, flags, rest, isOfProperties]) => {
      const usual = [6, 8, 10].includes(kind) ? 2 : 0
      const whole = isOfProperties ? [0, 0, rest.length, ...rest] : rest
      return [(kind << 4) | (flags ?? usual), whole.length, ...whole]
    })
  const welcomes = fc.constantFrom(
    ...([4, 5] as const).map((mqtt) => ({ mqtt, first: [...hex(welcome[mqtt])] })),
    // A keep alive that is cut off, and one that is there twice.
    ...["200500000213 00", "200900000613000a13000a"].map((text) => ({
      mqtt: 5 as const,
      first: [...hex(text)]
    })),
    { mqtt: 5 as const, first: [] }
  )

  it.live(
    "ends no agent by any packets",
    () =>
      Effect.gen(function* () {
        const errors = yield* uncaught
        let script = Buffer.alloc(0)
        const port = yield* brokerThat((socket, _bytes, piece) => {
          if (piece === 0) socket.end(script)
        })
        yield* property(fc.tuple(welcomes, fc.array(packet, { maxLength: 12 })), 300, (given) =>
          Effect.gen(function* () {
            const [{ first, mqtt }, packets] = given
            errors.length = 0
            script = Buffer.from([...first, ...packets.flat()])
            const session = Effect.gen(function* () {
              const link = yield* open(port, Effect.yieldNow, mqtt)
              yield* Effect.ignore(link.subscribe(["fleet/pi/#"]))
              yield* link.ended
            })
            yield* Effect.ignore(Effect.scoped(session))
            yield* turns
            assert.deepStrictEqual(errors, [])
          })
        )
      }),
    60_000
  )
})

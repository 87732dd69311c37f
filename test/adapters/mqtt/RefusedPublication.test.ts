/** An agent's publications at a broker of MQTT 5 that does not take all of them. */
import { connect, createServer, type Socket } from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import { mqttBus } from "../../../src/adapters/mqtt/MqttBus.ts"
import { asPi } from "./localBus.ts"

const [connectType, publishType] = [1, 3]
const quotaExceeded = 0x97

/** Takes everybody; acknowledges what ends with an odd byte, and refuses all else. Its packets are short. */
const serve = (socket: Socket): void => {
  let rest = Buffer.alloc(0)
  socket.on("error", () => undefined)
  socket.on("data", (bytes) => {
    rest = Buffer.concat([rest, bytes])
    for (;;) {
      const isLong = rest.length > 1 && (rest[1] as number) >= 0x80
      const start = isLong ? 3 : 2
      if (rest.length < start) return
      const length = isLong ? ((rest[1] as number) & 0x7f) + 0x80 * (rest[2] as number) : (rest[1] as number)
      if (rest.length < start + length) return
      const type = (rest[0] as number) >> 4
      const packet = rest.subarray(start, start + length)
      rest = rest.subarray(start + length)
      if (type === connectType) socket.write(Uint8Array.of(0x20, 3, 0, 0, 0))
      if (type !== publishType) continue
      const id = 2 + packet.readUInt16BE(0)
      const isTaken = (packet.at(-1) as number) % 2 === 1
      socket.write(
        Uint8Array.of(0x40, 4, packet[id] as number, packet[id + 1] as number, isTaken ? 0 : quotaExceeded, 0)
      )
    }
  })
}

const strictBroker = Effect.acquireRelease(
  Effect.callback<{ readonly port: number; readonly close: () => void }>((resume) => {
    const sockets = new Set<Socket>()
    const server = createServer((socket) => {
      sockets.add(socket)
      serve(socket)
    })
    server.listen(0, "127.0.0.1", () => {
      const address = server.address()
      const port = typeof address === "object" && address !== null ? address.port : 0
      const close = () => {
        for (const socket of sockets) socket.destroy()
        server.close()
      }
      resume(Effect.succeed({ port, close }))
    })
  }),
  ({ close }) => Effect.sync(close)
)

describe("a publication", () => {
  it.effect("that the broker does not take is told apart from a connection that breaks", () =>
    Effect.gen(function* () {
      const { port } = yield* strictBroker
      const dial = Effect.acquireRelease(
        Effect.sync(() => connect(port, "127.0.0.1").on("error", () => undefined)),
        (socket) => Effect.sync(() => void socket.destroy())
      )
      const bus = mqttBus({
        find: Effect.succeed({ topicRoot: "fleet", password: null, brokers: [{ mqtt: 5, dial }] })
      })
      const link = yield* Effect.flatMap(bus.find, (door) =>
        door.connect({ ...asPi, hasRoom: Effect.succeed(true), received: () => Effect.void })
      )
      const results = yield* Effect.forEach([1, 2, 3], (byte) =>
        Effect.result(link.publish("fleet/bob/public", Uint8Array.of(byte)))
      )
      assert.deepStrictEqual(results.map(Result.isSuccess), [true, false, true])
      const [, refused] = results
      const { code, reason } = yield* Effect.flip(Effect.fromResult(refused as (typeof results)[number]))
      assert.strictEqual(code, "refused")
      assert.include(reason, "Quota exceeded")
    })
  )
})

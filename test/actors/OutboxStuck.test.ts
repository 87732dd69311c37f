/** Results that do not go through hold up no others, however long that lasts. */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { WatchdogKey } from "../../src/actors/ClientKeys.ts"
import {
  type LinkError,
  type ServerLink,
  ServerRefused,
  ServerUnreachable,
  ServerUntrusted
} from "../../src/ports/ServerLink.ts"
import { orderId } from "./support/Parties.ts"
import { TestDevice } from "./support/TestDevice.ts"

const minute = 60_000
const hour = 60 * minute
const plan = { script: ["out:hello", "leave:result:10", "exit:0"], artifacts: ["result"] }

/** A device whose way to the scripted server is bent. */
const bent = (bend: (device: TestDevice, link: ServerLink["Service"]) => Partial<ServerLink["Service"]>) =>
  Effect.acquireRelease(
    Effect.gen(function* () {
      const device = new TestDevice()
      const straight = device.server.link.bind(device.server)
      device.server.link = (alive) => {
        const link = straight(alive)
        return { ...link, ...bend(device, link) }
      }
      yield* device.start
      return device
    }),
    (device) =>
      Effect.andThen(
        device.stop,
        Effect.sync(() => device.database.close())
      )
  )

const lies: ReadonlyArray<{ readonly what: string; readonly error: LinkError }> = [
  {
    what: "a proxy refuses by itself",
    error: new ServerUntrusted({ address: "sim", reason: "its answer is not signed" })
  },
  {
    what: "the server fails at",
    error: new ServerRefused({ code: "internal", message: "simulated", retryAfterMs: null })
  }
]

describe.each(lies)("results that $what", ({ error }) => {
  it.effect.each(["artifacts", "output"] as const)(
    "do not hold up receipts, or what others left: %s",
    (kind) =>
      Effect.gen(function* () {
        let refusing = true
        const device = yield* bent((_, link) => ({
          artifacts: (order, ...rest) =>
            refusing && kind === "artifacts" && order === orderId(1)
              ? Effect.fail(error)
              : link.artifacts(order, ...rest),
          output: (order, ...rest) =>
            refusing && kind === "output" && order === orderId(1)
              ? Effect.fail(error)
              : link.output(order, ...rest)
        }))
        for (const n of [1, 2]) device.server.submit(n, plan)
        yield* device.until(() => device.server.receipts.length === 2, "both receipts", 5 * minute)
        yield* device.until(
          () => device.server.artifacts.has(orderId(2)),
          "the other's artifacts",
          5 * minute
        )
        expect(device.server.output.has(orderId(2))).toBe(true)
        expect(device.server[kind].has(orderId(1))).toBe(false)
        refusing = false
        yield* device.until(() => device.server[kind].has(orderId(1)), "what was held up", hour)
        yield* device.until(() => device.host.spool.size === 0, "an empty spool")
      })
  )
})

describe("artifacts over a slow line", () => {
  const large = 40 * 1024 * 1024
  /** Artifacts of an order, as if a job had left them. */
  const leave = (device: TestDevice) => {
    device.host.spool.set("/spool/large.age", new Uint8Array(large))
    device.database
      .prepare(
        "INSERT INTO outbox (kind, order_id, path, size_bytes) VALUES ('artifacts', ?, '/spool/large.age', ?)"
      )
      .run(orderId(1), large)
  }

  it.effect("may take hours; receipts go out meanwhile, and nobody takes the device for dead", () =>
    Effect.gen(function* () {
      let received = 0
      const device = yield* bent(() => ({
        artifacts: (_order, offset, _total, block) =>
          Effect.delay(
            Effect.sync(() => {
              received = Math.max(received, offset + block.length)
              return { body: { received_bytes: received }, serverTimeMs: 0, rootVersion: 1 }
            }),
            15 * minute
          )
      }))
      leave(device)
      const other = device.server.submit(2, { script: ["exit:0"] })
      while (received < large) {
        const before = device.host.alive
        yield* device.pass(5 * minute, 5_000)
        expect(device.host.alive).toBeGreaterThan(before)
        const loops = yield* Effect.orDie(
          (device.system as NonNullable<TestDevice["system"]>).ref(WatchdogKey).ask("Report")
        )
        expect(loops.filter((loop) => loop.overdue)).toEqual([])
        if (received > large / 4) expect(device.server.receiptOf(other.id)).toBeDefined()
      }
    })
  )
  it.effect("go in smaller blocks where large ones never arrive", () =>
    Effect.gen(function* () {
      let received = 0
      const device = yield* bent(() => ({
        artifacts: (_order, offset, _total, block) =>
          Effect.suspend(() => {
            if (block.length > 200_000)
              return Effect.fail(new ServerUnreachable({ address: "sim", reason: "too late" }))
            received = Math.max(received, offset + block.length)
            return Effect.succeed({ body: { received_bytes: received }, serverTimeMs: 0, rootVersion: 1 })
          })
      }))
      leave(device)
      yield* device.until(() => received === large, "all of it", hour)
    })
  )
})

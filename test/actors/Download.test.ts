/** Downloads over lines that break, stall, drip and die, with one circuit and with several. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import fc from "fast-check"
import { type DownloadBounds, download, ownWayBytes, partsOf } from "../../src/actors/Download.ts"
import { PackageStore } from "../../src/ports/PackageStore.ts"
import {
  type LinkError,
  type PayloadWay,
  ServerLink,
  ServerRefused,
  ServerUnreachable
} from "../../src/ports/ServerLink.ts"
import { missingSpans, type Spans, spannedBytes, withSpan } from "../../src/schemas/Spans.ts"
import { orderOf } from "./support/Parties.ts"
import { deviceUnderTest } from "./support/TestDevice.ts"

const kibibyte = 1024
const mebibyte = 1024 * kibibyte
const blockBytes = 32 * kibibyte

/** What becomes of one request: it breaks off after so many bytes, and each block takes so long. */
interface Fate {
  readonly cutAfter: number
  readonly blockMs: number
}

const good: Fate = { cutAfter: Number.POSITIVE_INFINITY, blockMs: 10 }

interface Asked {
  readonly from: number
  readonly way: PayloadWay
}

/** A payload on a server, and a line to it whose fates the test decides. */
class Line {
  readonly asked: Array<Asked> = []
  readonly progress: Array<number> = []
  held: Spans = []
  /** Bytes that came over it, all requests together. */
  sentBytes = 0
  /** Requests under way, and the most there were. */
  open = 0
  mostOpen = 0
  readonly sizeBytes: number
  readonly fateOf: (asked: Asked, number: number) => Fate | LinkError
  constructor(sizeBytes: number, fateOf: (asked: Asked, number: number) => Fate | LinkError = () => good) {
    this.sizeBytes = sizeBytes
    this.fateOf = fateOf
  }

  get order() {
    const order = orderOf(1, { script: [] })
    return { ...order, payload: { ...order.payload, size_bytes: this.sizeBytes } }
  }

  private payload(from: number, way: PayloadWay): Stream.Stream<Uint8Array, LinkError> {
    const asked = { from, way }
    this.asked.push(asked)
    const fate = this.fateOf(asked, this.asked.length)
    if ("_tag" in fate) return Stream.fail(fate)
    const end = Math.min(way.until ?? this.sizeBytes, from + fate.cutAfter)
    const starts = Array.from(
      { length: Math.ceil((end - from) / blockBytes) },
      (_, n) => from + n * blockBytes
    )
    const isCut = end < (way.until ?? this.sizeBytes)
    const blocks = Stream.fromIterable(starts).pipe(
      Stream.mapEffect((start) =>
        Effect.delay(Effect.succeed(new Uint8Array(Math.min(end - start, blockBytes))), fate.blockMs)
      )
    )
    const whole = isCut
      ? Stream.concat(blocks, Stream.fail(new ServerUnreachable({ address: "sim", reason: "it was cut" })))
      : blocks
    return Stream.unwrap(
      Effect.acquireRelease(
        Effect.sync(() => {
          this.open++
          this.mostOpen = Math.max(this.mostOpen, this.open)
          return whole
        }),
        () => Effect.sync(() => void this.open--)
      )
    )
  }

  /** Downloads under these bounds and virtual time, with circuits or without. */
  run(bounds: Partial<DownloadBounds> = {}, hasCircuits = true) {
    const link = {
      hasCircuits: Effect.succeed(hasCircuits),
      payload: (_: unknown, from: number, way: PayloadWay = {}) => this.payload(from, way)
    } as unknown as ServerLink["Service"]
    const store = {
      downloaded: () => Effect.sync(() => spannedBytes(this.held)),
      missing: () => Effect.sync(() => missingSpans(this.held, this.sizeBytes)),
      download: (_order, offset, bytes, onProgress) => {
        let reached = offset
        return Stream.runForEach(bytes, (block) =>
          Effect.suspend(() => {
            this.sentBytes += block.length
            this.held = withSpan(this.held, { from: reached, until: reached + block.length })
            reached += block.length
            return onProgress(reached)
          })
        )
      }
    } as Partial<PackageStore["Service"]> as PackageStore["Service"]
    const all = { timeoutMs: 3_600_000, minimumRate: 100, circuits: 4, ...bounds }
    return download(this.order, all, (done) => Effect.sync(() => void this.progress.push(done))).pipe(
      Effect.provideService(ServerLink, link),
      Effect.provideService(PackageStore, store)
    )
  }

  get isWhole(): boolean {
    return spannedBytes(this.held) === this.sizeBytes
  }
}

/** Lets virtual time pass until an effect has ended. */
const ended = Effect.fnUntraced(function* <A, E>(
  effect: Effect.Effect<A, E>,
  stepMs = 1_000,
  limitMs = 7_200_000
) {
  const fiber = yield* Effect.forkChild(effect)
  for (let passed = 0; passed < limitMs && fiber.pollUnsafe() === undefined; passed += stepMs)
    yield* TestClock.adjust(stepMs)
  if (fiber.pollUnsafe() === undefined) throw new Error("the download does not end")
  return yield* Fiber.await(fiber)
})

const failureOf = <A, E extends { readonly _tag: string }>(exit: Exit.Exit<A, E>): string | undefined =>
  Exit.isFailure(exit)
    ? (exit.cause.reasons[0] as { readonly error?: E } | undefined)?.error?._tag
    : undefined

const circuitsOf = (line: Line) => line.asked.map(({ way }) => way.circuit)

describe("a download", () => {
  it.effect("of a small payload comes in one piece, the way of the polls", () =>
    Effect.gen(function* () {
      const line = new Line(ownWayBytes)
      yield* ended(line.run())
      expect(line.asked).toEqual([{ from: 0, way: {} }])
      expect(line.isWhole).toBe(true)
    })
  )

  it.effect("of a large one takes as many circuits as it may, each its own, where there are any", () =>
    Effect.gen(function* () {
      const line = new Line(20 * mebibyte)
      yield* ended(line.run())
      expect(line.isWhole).toBe(true)
      expect(line.mostOpen).toBe(4)
      expect(new Set(circuitsOf(line)).size).toBe(4)
      expect(line.progress.at(-1)).toBe(line.sizeBytes)
      expect([...line.progress].sort((one, other) => one - other)).toEqual(line.progress)
      const direct = new Line(20 * mebibyte)
      yield* ended(direct.run({}, false))
      expect([direct.asked.length, direct.mostOpen, direct.isWhole]).toEqual([1, 1, true])
    })
  )

  it.effect("goes on where it broke off, over a fresh circuit each time", () =>
    Effect.gen(function* () {
      const line = new Line(2 * mebibyte, () => ({ cutAfter: 300_000, blockMs: 10 }))
      yield* ended(line.run({ circuits: 1 }))
      expect(line.isWhole).toBe(true)
      expect(line.asked.map(({ from }) => from)).toEqual([0, 1, 2, 3, 4, 5, 6].map((n) => n * 300_000))
      expect(new Set(circuitsOf(line)).size).toBe(7)
    })
  )

  it("loses no byte and fetches none twice, however its circuits break", async () => {
    const fates = fc.array(
      fc.record({
        cutAfter: fc.integer({ min: 1, max: 3 * mebibyte }),
        blockMs: fc.integer({ min: 0, max: 500 })
      }),
      { minLength: 1, maxLength: 40 }
    )
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 12 * mebibyte }),
        fc.integer({ min: 1, max: 8 }),
        fates,
        async (sizeBytes, circuits, list) => {
          // In the end the line holds, or no download would.
          const line = new Line(sizeBytes, (_, number) => list[number - 1] ?? good)
          const run = ended(line.run({ circuits }), 5_000).pipe(Effect.provide(TestClock.layer()))
          const exit = await Effect.runPromise(run)
          expect(Exit.isSuccess(exit)).toBe(true)
          expect(line.held).toEqual([{ from: 0, until: sizeBytes }])
          expect(line.sentBytes).toBe(sizeBytes)
          expect(line.progress.at(-1)).toBe(sizeBytes)
          expect(line.mostOpen).toBeLessThanOrEqual(circuits)
          expect(line.open).toBe(0)
        }
      ),
      { numRuns: process.env["POSTERN_PROOF"] === "long" ? 400 : 40 }
    )
  })

  it.effect("does without a circuit that is dead among several", () =>
    Effect.gen(function* () {
      let dead: string | undefined
      const line = new Line(20 * mebibyte, ({ way }, number) => {
        if (number === 2) dead = way.circuit
        // It stands, and nothing ever comes of it: the transport notices after a while.
        return way.circuit === dead ? { cutAfter: 0, blockMs: 30_000 } : good
      })
      yield* ended(line.run())
      expect(line.isWhole).toBe(true)
      expect(circuitsOf(line).filter((circuit) => circuit === dead)).toHaveLength(1)
    })
  )

  it.effect("gives a drip below the rate up after a second circuit, and keeps what came", () =>
    Effect.gen(function* () {
      const line = new Line(2 * mebibyte, () => ({ cutAfter: Number.POSITIVE_INFINITY, blockMs: 20_000 }))
      const exit = yield* ended(line.run({ minimumRate: 10_000, circuits: 1 }))
      expect(failureOf(exit)).toBe("TooSlow")
      expect(new Set(circuitsOf(line)).size).toBe(2)
      expect(spannedBytes(line.held)).toBeGreaterThan(0)
    })
  )

  it.effect("asks every circuit for its share of the rate only", () =>
    Effect.gen(function* () {
      // 4 circuits of 6.4 KiB a second each.
      const line = new Line(4 * mebibyte, () => ({ cutAfter: Number.POSITIVE_INFINITY, blockMs: 5_000 }))
      yield* ended(line.run({ minimumRate: 20_000 }))
      expect(line.isWhole).toBe(true)
    })
  )

  it.effect("is put off when nothing comes, and takes no more than its time", () =>
    Effect.gen(function* () {
      const gone = new ServerUnreachable({ address: "sim", reason: "simulated" })
      const line = new Line(8 * mebibyte, () => gone)
      expect(failureOf(yield* ended(line.run()))).toBe("ServerUnreachable")
      expect(line.asked.length).toBeLessThanOrEqual(8)
      const slow = new Line(8 * mebibyte, () => ({ cutAfter: Number.POSITIVE_INFINITY, blockMs: 5_000 }))
      expect(failureOf(yield* ended(slow.run({ timeoutMs: 60_000 })))).toBe("TooSlow")
      expect(slow.open).toBe(0)
    })
  )

  it.effect("ends at once with what is no fault of the line", () =>
    Effect.gen(function* () {
      const refused = new ServerRefused({ code: "gone", message: "simulated", retryAfterMs: null })
      const line = new Line(8 * mebibyte, (_, number) => (number === 3 ? refused : good))
      expect(failureOf(yield* ended(line.run()))).toBe("ServerRefused")
      expect(line.open).toBe(0)
    })
  )

  it("is cut into parts that cover what is missing, none too small to be worth asking for", () => {
    const missing = [
      { from: 0, until: 3 * mebibyte },
      { from: 5 * mebibyte, until: 40 * mebibyte }
    ]
    for (const circuits of [1, 2, 4, 8]) {
      const parts = partsOf(missing, circuits)
      expect(parts.reduce<Spans>(withSpan, [])).toEqual(missing)
      expect(spannedBytes(parts)).toBe(spannedBytes(missing))
      expect(parts.length).toBeLessThanOrEqual(4 * circuits + 2)
    }
  })
})

const minute = 60_000
const plan = { script: ["exit:0"] }

describe("a device that downloads", () => {
  it.effect("tells at the order's deadline how far it came", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest({ config: { download_minimum_rate: 1 } })
      device.server.blockMs = 20_000
      const order = device.server.submit(1, plan, { deadline_at_ms: 50_000 })
      yield* device.until(() => device.server.receipts.length > 0, "the refusal", 20 * minute, 1_000)
      expect(device.server.receiptOf(order.id)).toMatchObject({
        state: "rejected",
        reason: "payload_too_slow",
        detail: `2000 of ${order.payload.size_bytes} bytes had come when the time of the order was over`
      })
      expect(device.server.receiptOf(order.id)?.ended_at_ms).toBeLessThan(minute)
      expect(device.host.files.size).toBe(0)
    })
  )

  it.effect("gives an order that came late the time until it expires", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest({ config: { download_minimum_rate: 1 } })
      yield* device.pass(5 * minute)
      device.server.blockMs = minute
      const order = device.server.submit(1, plan, { deadline_at_ms: minute })
      yield* device.until(() => device.server.receipts.length > 0, "the receipt", 20 * minute, 1_000)
      expect(device.server.receiptOf(order.id)).toMatchObject({ state: "succeeded" })
    })
  )

  it.effect("goes on after the server was away in the middle, with what it has", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      device.server.blockMs = 2_000
      const order = device.server.submit(1, plan)
      const has = () => device.host.files.get(order.id)?.length ?? 0
      yield* device.until(() => has() >= 2_000, "two blocks")
      device.server.online = false
      device.server.stir()
      yield* device.pass(5 * minute)
      const before = has()
      expect(before).toBeGreaterThanOrEqual(2_000)
      expect(before).toBeLessThan(order.payload.size_bytes)
      device.server.online = true
      device.server.blockMs = 0
      yield* device.until(() => device.server.receipts.length > 0, "the receipt", 5 * minute)
      expect(device.server.receiptOf(order.id)).toMatchObject({ state: "succeeded" })
    })
  )

  it.effect("goes on after its program died in the middle, with what it has", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest()
      device.server.blockMs = 2_000
      const order = device.server.submit(1, plan)
      const has = () => device.host.files.get(order.id)?.length ?? 0
      yield* device.until(() => has() >= 2_000, "two blocks")
      yield* device.crash
      const before = has()
      yield* device.start
      yield* device.until(() => device.server.receipts.length > 0, "the receipt", 5 * minute)
      expect(before).toBeLessThan(order.payload.size_bytes)
      expect(device.server.receiptOf(order.id)).toMatchObject({ state: "succeeded" })
    })
  )

  it.effect("tells of a long one twice a minute, not more", () =>
    Effect.gen(function* () {
      const device = yield* deviceUnderTest({ config: { download_minimum_rate: 1 } })
      device.server.blockMs = 20_000
      const order = device.server.submit(1, plan)
      yield* device.until(() => device.server.receipts.length > 0, "the receipt", 20 * minute)
      const told = device.server.progress.filter(({ done_bytes }) => done_bytes !== null)
      // Five blocks within 100 seconds: none is worth a report of its own beyond the first.
      expect(told.length).toBeGreaterThan(0)
      expect(told.length).toBeLessThanOrEqual(5)
      expect(told.every(({ total_bytes }) => total_bytes === order.payload.size_bytes)).toBe(true)
    })
  )
})

/**
 * However its requests fail, a device goes on asking: between the end of one attempt and the begin of the next never
 * passes more than the configured bound. Simulated time, the real link over a transport that fails.
 */
import { describe, expect, it } from "@effect/vitest"
import { Clock, Effect, Layer, Logger, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import type { Transport, TransportResponse } from "../../src/adapters/http/Transport.ts"
import { TransportError } from "../../src/adapters/http/Transport.ts"
import { SignedLink } from "../../src/adapters/SignedLink.ts"
import { ServerLink } from "../../src/ports/ServerLink.ts"
import { RouteFailure } from "../../src/schemas/RouteFailure.ts"
import { scaled } from "../support/proof.ts"
import { TestDevice } from "./support/TestDevice.ts"

const minute = 60_000

/** How a request fails. */
type Fault =
  | { readonly kind: "error"; readonly code: RouteFailure | null; readonly afterMs: number }
  /** Nobody ever answers; the link's own limits end it. */
  | { readonly kind: "hangs" }
  /** The head comes, and then nothing. */
  | { readonly kind: "stalls" }
  /** A gateway's word, with a wish for patience. */
  | { readonly kind: "status"; readonly status: number; readonly retryAfter: string }

const fault: fc.Arbitrary<Fault> = fc.oneof(
  fc.record({
    kind: fc.constant("error" as const),
    code: fc.option(fc.constantFrom(...RouteFailure.literals), { nil: null }),
    afterMs: fc.nat(30_000)
  }),
  fc.record({ kind: fc.constant("hangs" as const) }),
  fc.record({ kind: fc.constant("stalls" as const) }),
  fc.record({
    kind: fc.constant("status" as const),
    status: fc.constantFrom(200, 302, 404, 407, 429, 500, 503, 511),
    retryAfter: fc.constantFrom("0", "30", "999999", "never")
  })
)

const failWith = (it: Fault, responseTimeoutMs: number): Effect.Effect<TransportResponse, TransportError> => {
  const failure = (reason: string, code: RouteFailure | null = null) =>
    new TransportError({ reason, stale: false, ...(code === null ? {} : { code }) })
  switch (it.kind) {
    case "error":
      return Effect.delay(Effect.fail(failure("simulated", it.code)), it.afterMs)
    case "hangs":
      return Effect.delay(Effect.fail(failure("no answer came")), responseTimeoutMs)
    case "stalls":
      return Effect.succeed({ status: 200, headers: {}, body: Stream.never })
    case "status":
      return Effect.succeed({
        status: it.status,
        headers: { "retry-after": it.retryAfter },
        body: Stream.empty
      })
  }
}

/** A way that fails in the given ways in turn, and remembers when requests that ask for work began and ended. */
class BrokenWay implements Transport {
  readonly attempts: Array<{ readonly beganAtMs: number; endedAtMs: number | null }> = []
  private readonly faults: ReadonlyArray<Fault>
  private readonly paths: ReadonlyArray<string>
  private turn = 0

  constructor(faults: ReadonlyArray<Fault>, paths: ReadonlyArray<string>) {
    this.faults = faults
    this.paths = paths
  }

  readonly send: Transport["send"] = (request) =>
    Effect.gen({ self: this }, function* () {
      const it = this.faults[this.turn++ % this.faults.length] as Fault
      if (this.paths.some((path) => request.path.endsWith(path))) {
        const attempt = { beganAtMs: yield* Clock.currentTimeMillis, endedAtMs: null as number | null }
        this.attempts.push(attempt)
        // Of an answer whose body stalls, too: the scope is the request's.
        yield* Effect.addFinalizer(() =>
          Effect.map(Clock.currentTimeMillis, (nowMs) => {
            attempt.endedAtMs = nowMs
          })
        )
      }
      return yield* failWith(it, request.responseTimeoutMs)
    })

  /** The longest times from an attempt's end to the next one's begin, and from its begin to its end. */
  longest(nowMs: number): { readonly silenceMs: number; readonly attemptMs: number } {
    let silenceMs = 0
    let attemptMs = 0
    for (const [index, { beganAtMs, endedAtMs }] of this.attempts.entries()) {
      const next = this.attempts[index + 1]?.beganAtMs ?? nowMs
      if (endedAtMs !== null) silenceMs = Math.max(silenceMs, next - endedAtMs)
      attemptMs = Math.max(attemptMs, (endedAtMs ?? nowMs) - beganAtMs)
    }
    return { silenceMs, attemptMs }
  }
}

/** The link's limit on a whole call, and what a held poll gets on top. */
const callMs = 120_000
/** Virtual time goes on in steps, at whose ends things happen. */
const stepMs = 1_000

const scenario = fc.record({
  faults: fc.array(fault, { minLength: 1, maxLength: 6 }),
  sleepMaximumMs: fc.constantFrom(2_000, 15_000, 60_000, 300_000),
  longPollMs: fc.constantFrom(0, 25_000, 60_000),
  seed: fc.nat(1_000),
  /** Ledger methods with a defect when they are used next: the actor that uses them is started afresh. */
  defects: fc.subarray(["highWater", "unfinished", "chainHead", "outboxSize"])
})

type Scenario = typeof scenario extends fc.Arbitrary<infer A> ? A : never

/** A device that was accepted (or not), and then finds nothing but faults. */
const silenceOf = (given: Scenario, accepted: boolean) =>
  Effect.gen(function* () {
    const way = new BrokenWay(given.faults, accepted ? ["/poll"] : ["/identity", "/roots", "/enrolment"])
    let isBroken = false
    const device: TestDevice = new TestDevice({
      accepted,
      seed: given.seed,
      config: {
        sleep_minimum_ms: 1_000,
        sleep_maximum_ms: given.sleepMaximumMs,
        long_poll_ms: given.longPollMs
      },
      link: (alive) =>
        isBroken
          ? SignedLink({ transport: way, addresses: ["http://server.test"] })
          : Layer.succeed(ServerLink, device.server.link(alive))
    })
    yield* Effect.acquireRelease(device.start, () =>
      Effect.andThen(
        device.stop,
        Effect.sync(() => device.close())
      )
    )
    if (accepted) yield* device.until(() => device.server.polls.length > 1, "a poll")
    yield* device.stop
    isBroken = true
    yield* device.start
    for (let part = 0; part < 4; part++) {
      for (const method of given.defects) device.poison.set(method, 1)
      yield* device.pass(4 * minute + given.sleepMaximumMs, stepMs)
    }
    expect(way.attempts.length).toBeGreaterThan(3)
    return way.longest(yield* Clock.currentTimeMillis)
  })

const check = (accepted: boolean): Promise<void> =>
  fc.assert(
    fc.asyncProperty(scenario, (given) =>
      Effect.gen(function* () {
        const { attemptMs, silenceMs } = yield* silenceOf(given, accepted)
        // A restart of an actor, and the parts of a turn before its poll, take a moment.
        expect(silenceMs).toBeLessThanOrEqual(given.sleepMaximumMs + 10_000)
        expect(attemptMs).toBeLessThanOrEqual(callMs + given.longPollMs + 2 * stepMs)
      }).pipe(
        Effect.scoped,
        Effect.provide(Layer.merge(TestClock.layer(), Logger.layer([]))),
        Effect.runPromise
      )
    ),
    { numRuns: scaled(4) }
  )

describe("a device without a way to its server", () => {
  it("that was accepted is never silent for longer than sleep_maximum_ms", () => check(true))
  it("that nobody has let in yet is never silent for longer than sleep_maximum_ms", () => check(false))
})

/**
 * A day of one device and its server in one process, under virtual time: an operator submits and cancels orders, the
 * network is cut, both machines crash. What comes of it is a function of the seed.
 */
import { Clock, Effect, Layer, Random, Semaphore } from "effect"
import { TestClock } from "effect/testing"
import { SignedLink } from "../../src/adapters/SignedLink.ts"
import type { TraceEvent } from "../../src/kernel/index.ts"
import type { JobRow } from "../../src/ports/FleetStore.ts"
import type { Digest } from "../../src/schemas/Ids.ts"
import type { LaneName, WorkOrder } from "../../src/schemas/WorkOrder.ts"
import {
  admissionOf,
  device as deviceId,
  orderOf,
  type PackagePlan,
  payloadOf,
  rootOf,
  signAdmission,
  signCancel,
  signOrder,
  signRoot
} from "../actors/support/Parties.ts"
import { TestDevice } from "../actors/support/TestDevice.ts"
import { type Chance, chanceOf } from "./Chance.ts"
import { check } from "./invariants.ts"
import { Network } from "./Network.ts"
import { PathEntropy } from "./PathEntropy.ts"
import { SimServer } from "./SimServer.ts"

const second = 1_000
const minute = 60 * second
const hour = 60 * minute
const day = 24 * hour

/** The server knows the time: spring of 2027. The device wakes up in 1970 and learns it. */
const serverSkewMs = 1_800_000_000_000

const origin = "http://127.0.0.1:8470"

export interface WorldOptions {
  readonly seed: number
  readonly lengthMs: number
  readonly orders: number
  readonly deviceCrashes: number
  readonly serverCrashes: number
  readonly cuts: number
}

/** An order as its operator remembers it. */
export interface Submitted {
  readonly order: WorkOrder
  readonly digest: Digest
  readonly plan: PackagePlan
  canceled: boolean
}

export interface Day {
  readonly submitted: ReadonlyArray<Submitted>
  readonly jobs: ReadonlyMap<string, JobRow>
  readonly device: TestDevice
  readonly server: SimServer
  /** Everything that happened, in order. */
  readonly trace: ReadonlyArray<string>
}

interface Happening {
  readonly atMs: number
  readonly name: string
  readonly effect: Effect.Effect<void, unknown>
}

const skewed = (clock: Clock.Clock, skewMs: number): Clock.Clock => {
  const nanos = BigInt(skewMs) * 1_000_000n
  return {
    ...clock,
    sleep: (duration) => clock.sleep(duration),
    currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + skewMs,
    currentTimeMillis: Effect.map(clock.currentTimeMillis, (ms) => ms + skewMs),
    currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe() + nanos,
    currentTimeNanos: Effect.map(clock.currentTimeNanos, (ns) => ns + nanos)
  }
}

const planOf = (chance: Chance): PackagePlan => {
  const work = chance.pick([100, 5_000, 60_000, 600_000])
  const end = chance.pick(["exit:0", "exit:0", "exit:0", "exit:1", "signal:SIGKILL"])
  return {
    script: ["out:begun", `sleep:${work}`, `flood:${chance.between(0, 150_000)}`, "leave:result:100", end],
    artifacts: ["result"],
    idempotent: chance.happens(0.4),
    limits: { timeout_ms: chance.pick([30_000, 3_600_000]) }
  }
}

/** The operator: submits to whatever server there is, and tries again until it is there. */
const makeOperator = (server: SimServer, say: (line: string) => void) => {
  const submitted: Array<Submitted> = []
  // One after the other, as counters rise: an order that overtook another would shut it out for good.
  const inTurn = Semaphore.makeUnsafe(1)
  let counter = 0
  let previous: Digest | null = null
  const patiently = <A, E>(attempt: () => Effect.Effect<A, E> | undefined): Effect.Effect<A> =>
    Effect.suspend(() => {
      const effect = attempt()
      const again = Effect.andThen(
        Effect.sleep(30 * second),
        Effect.suspend(() => patiently(attempt))
      )
      return effect === undefined ? again : Effect.catch(effect, () => again)
    })
  const upload = (n: number, plan: PackagePlan) => {
    const { bytes, digest } = payloadOf(n, plan)
    return patiently(() => server.life?.blobs.write({ kind: "payload", digest }, 0, bytes.length, bytes))
  }
  return {
    submitted,
    submit: (n: number, plan: PackagePlan, lane: LaneName, lifetimeMs: number, nowMs: number) =>
      inTurn.withPermit(
        Effect.gen(function* () {
          const order = orderOf(n, plan, {
            lane,
            counter: ++counter,
            previous,
            issued_at_ms: nowMs,
            expires_at_ms: nowMs + lifetimeMs,
            deadline_at_ms: nowMs + lifetimeMs
          })
          const { digest, envelope } = signOrder(order)
          previous = digest
          submitted.push({ order, digest, plan, canceled: false })
          yield* upload(n, plan)
          yield* patiently(() => server.device(deviceId)?.ask("Submit", { envelope, actor: "operator" }))
          say(`submitted ${order.id}`)
        })
      ),
    cancel: (n: number, nowMs: number) =>
      Effect.suspend(() => {
        const entry = submitted[n]
        if (entry === undefined) return Effect.void
        entry.canceled = true
        const { id } = entry.order
        const envelope = signCancel(id, { issued_at_ms: nowMs, expires_at_ms: nowMs + day })
        // A job that has ended by then is no reason to try again.
        const ask = () => {
          const ref = server.device(deviceId)
          return ref === undefined
            ? undefined
            : Effect.catchTags(ref.ask("Cancel", { order: id, envelope, actor: "operator" }), {
                Conflict: () => Effect.void,
                NotFound: () => Effect.void
              })
        }
        return Effect.andThen(
          patiently(ask),
          Effect.sync(() => say(`canceled ${id}`))
        )
      })
  }
}

/** The weather of the day, from the seed alone. */
const plan = (
  options: WorldOptions,
  chance: Chance,
  parts: {
    readonly device: TestDevice
    readonly server: SimServer
    readonly network: Network
    readonly operator: ReturnType<typeof makeOperator>
    readonly serverNow: () => number
  }
): ReadonlyArray<Happening> => {
  const { device, network, operator, server, serverNow } = parts
  const happenings: Array<Happening> = []
  const at = (atMs: number, name: string, effect: Effect.Effect<void, unknown>) =>
    happenings.push({ atMs, name, effect })
  const sometime = () => chance.between(minute, options.lengthMs)
  const background = (effect: Effect.Effect<void, unknown>) => Effect.asVoid(Effect.forkDetach(effect))
  const times = Array.from({ length: options.orders }, sometime).sort((a, b) => a - b)
  for (const [n, atMs] of times.entries()) {
    const work = planOf(chance)
    const lane = chance.happens(0.25) ? ("service" as const) : ("job" as const)
    const lifetimeMs = chance.pick([day * 2, day * 2, 40 * minute])
    at(
      atMs,
      `order ${n}`,
      background(Effect.suspend(() => operator.submit(n + 1, work, lane, lifetimeMs, serverNow())))
    )
    if (chance.happens(0.25)) {
      at(
        atMs + chance.between(0, 20 * minute),
        `cancel ${n}`,
        background(Effect.suspend(() => operator.cancel(n, serverNow())))
      )
    }
  }
  for (let index = 0; index < options.deviceCrashes; index++) {
    const atMs = sometime()
    const downMs = chance.between(second, 5 * minute)
    if (index % 2 === 0) {
      at(atMs, "device crash", device.crashNow)
      at(atMs + downMs, "device start", restart(device))
    } else {
      at(atMs, "device crash armed", crashAtStep(device, chance.between(0, 12), downMs))
    }
  }
  for (let index = 0; index < options.serverCrashes; index++) {
    const atMs = sometime()
    at(atMs, "server crash", server.kill)
    at(
      atMs + chance.between(second, 10 * minute),
      "server start",
      Effect.suspend(() => (server.life === undefined ? server.start : Effect.void))
    )
  }
  for (let index = 0; index < options.cuts; index++) {
    const atMs = sometime()
    at(atMs, "network cut", Effect.asVoid(network.sever))
    at(atMs + chance.between(second, 90 * minute), "network mended", network.mend)
  }
  return happenings.sort((a, b) => a.atMs - b.atMs)
}

/** The device dies at one of its next changes of the ledger: before it, or when it is done but nobody knows yet. */
const crashAtStep = (device: TestDevice, step: number, downMs: number) =>
  Effect.sync(() => {
    let left = step
    device.tap = () =>
      Effect.suspend(() => {
        if (left-- > 0) return Effect.void
        device.tap = () => Effect.void
        const later = Effect.forkDetach(Effect.delay(restart(device), downMs))
        return device.crashNow.pipe(Effect.andThen(later), Effect.andThen(Effect.never))
      })
  })

/** A start that finds the device running already (two crashes close together) changes nothing. */
const restart = (device: TestDevice) =>
  Effect.suspend(() => (device.system === undefined ? Effect.asVoid(device.start) : Effect.void))

/** Publishes the root and accepts the device, as soon as it asks. */
const enrol = Effect.fnUntraced(function* (server: SimServer, device: TestDevice, nowMs: number) {
  const root = signRoot(rootOf({ expiresAtMs: nowMs + 1_000 * day }))
  yield* Effect.orDie(
    server.registrar?.ask("PublishRoot", { envelope: root.envelope, actor: "operator" }) ?? Effect.void
  )
  yield* device.start
  yield* device.until(() => device.ledger !== undefined, "the ledger")
  const waiting = Effect.suspend(() => server.life?.store.device(deviceId) ?? Effect.succeed(null))
  for (let tries = 0; (yield* Effect.orDie(waiting)) === null; tries++) {
    if (tries > 600) throw new Error("the device did not ask to be let in")
    yield* TestClock.adjust(second)
  }
  const admission = admissionOf(device.ledger?.incarnation as never, { issued_at_ms: nowMs })
  const envelope = signAdmission(admission)
  yield* Effect.orDie(
    server.registrar?.ask("Admit", { device: deviceId, envelope, actor: "operator" }) ?? Effect.void
  )
})

const lineOf = (node: string) => (event: TraceEvent) =>
  `${event.atMs} ${node} ${event.path} ${event.tag} ${event.outcome}`

/** Waits until every order has ended and nothing is left to send, in a world without faults. */
const settle = Effect.fnUntraced(function* (
  device: TestDevice,
  server: SimServer,
  submitted: ReadonlyArray<Submitted>
) {
  for (let passedMs = 0; passedMs < 4 * day; passedMs += 10 * minute) {
    yield* TestClock.adjust(10 * minute)
    const { store } = server.life as NonNullable<SimServer["life"]>
    const open = yield* Effect.orDie(store.jobs({ device: deviceId, open: true, limit: 1_000 }))
    const size = yield* Effect.orDie((device.ledger as NonNullable<TestDevice["ledger"]>).outboxSize)
    const known = yield* Effect.orDie(store.jobs({ device: deviceId, open: false, limit: 1_000 }))
    if (open.length === 0 && size.items === 0 && known.length >= submitted.length) return
  }
  throw new Error(`${submitted.length} orders did not all come to their end within days`)
})

/** Lives through a day, and some quiet hours after it in which everything comes to its end. */
export const liveThrough = (options: WorldOptions): Effect.Effect<Day> =>
  Effect.gen(function* () {
    const chance = chanceOf(options.seed)
    const clock = yield* Clock.Clock
    const trace: Array<string> = []
    const say = (line: string) => trace.push(`${clock.currentTimeMillisUnsafe()} ${line}`)
    const serverClock = skewed(clock, serverSkewMs)
    const serverNow = () => serverClock.currentTimeMillisUnsafe()
    const server = new SimServer(origin, serverClock, (event) => trace.push(lineOf("server")(event)))
    const network = new Network(chanceOf(options.seed + 1_000_000), 0.03, () => server.life?.handler)
    const device = new TestDevice({
      accepted: false,
      seed: options.seed,
      config: { long_poll_ms: 60_000, health_interval_ms: 600_000 },
      entropy: PathEntropy(`device ${options.seed}`),
      link: (alive) => SignedLink({ transport: network.transport(alive), addresses: [origin] }),
      onTrace: (event) => trace.push(lineOf("device")(event))
    })
    const operator = makeOperator(server, say)
    yield* server.start
    yield* enrol(server, device, serverNow())
    const begin = clock.currentTimeMillisUnsafe()
    for (const { atMs, effect, name } of plan(options, chance, {
      device,
      server,
      network,
      operator,
      serverNow
    })) {
      const leftMs = begin + atMs - clock.currentTimeMillisUnsafe()
      if (leftMs > 0) yield* TestClock.adjust(leftMs)
      say(name)
      yield* effect
    }
    // From here on nothing goes wrong any more, not even what was armed before.
    device.tap = () => Effect.void
    network.forgetfulness = 0
    yield* network.mend
    if (server.life === undefined) yield* server.start
    yield* restart(device)
    yield* settle(device, server, operator.submitted)
    const { store } = server.life as NonNullable<SimServer["life"]>
    const rows = yield* store.jobs({ device: deviceId, open: false, limit: 1_000 })
    for (const run of device.host.runs) trace.push(`run ${run.order} ${run.startedAtMs} ${run.endedAtMs}`)
    trace.push(...network.log)
    return {
      submitted: operator.submitted,
      jobs: new Map(rows.map((row) => [row.id, row])),
      device,
      server,
      trace
    }
  }).pipe(Effect.orDie, Random.withSeed(options.seed))

/** Stops everything that still runs, and closes the databases. */
export const dispose = (lived: Day) =>
  Effect.gen(function* () {
    yield* lived.device.crash
    yield* lived.server.kill
    yield* TestClock.adjust(minute)
    lived.device.close()
    lived.server.close()
  })

/** A day with what a day may bring. */
export const usual = (seed: number): WorldOptions => ({
  seed,
  lengthMs: day,
  orders: 10,
  deviceCrashes: 2,
  serverCrashes: 1,
  cuts: 2
})

/** A few hours with as many faults as a bad month. */
export const rough = (seed: number): WorldOptions => ({
  seed,
  lengthMs: 3 * hour,
  orders: 12,
  deviceCrashes: 6,
  serverCrashes: 4,
  cuts: 4
})

/** Lives through a day, checks what must hold after it, and gives its trace. */
export const traceOf = (options: WorldOptions) =>
  Effect.gen(function* () {
    const lived = yield* liveThrough(options)
    const receipts = yield* Effect.orDie(check(lived))
    yield* dispose(lived)
    return { trace: lived.trace, receipts }
  }).pipe(
    // Each world has a time of its own, which waits for what is under way however slow this machine is.
    Effect.provide(Layer.fresh(TestClock.layer({ warningDelay: "1 hour" })))
  )

/** A server of few words, behind the port `ServerLink`: it does what a test tells it, honest or not. */
import { Clock, Deferred, Effect, Stream } from "effect"
import { digestOf } from "../../../src/crypto/Documents.ts"
import { verifyReceipt } from "../../../src/crypto/Trust.ts"
import {
  type LinkError,
  ServerLink,
  ServerRefused,
  ServerUnreachable
} from "../../../src/ports/ServerLink.ts"
import type { DeviceApiErrorCode, PollRequest } from "../../../src/schemas/DeviceApi.ts"
import type { DsseEnvelope } from "../../../src/schemas/Dsse.ts"
import type { HealthReport } from "../../../src/schemas/Health.ts"
import type { Digest, OrderId } from "../../../src/schemas/Ids.ts"
import type { Receipt } from "../../../src/schemas/Receipt.ts"
import type { RouteFailure } from "../../../src/schemas/RouteFailure.ts"
import type { OrderProgress, WorkOrder } from "../../../src/schemas/WorkOrder.ts"
import {
  device,
  deviceKeys,
  engine,
  firstRootEnvelope,
  type Key,
  orderOf,
  type PackagePlan,
  payloadOf,
  server,
  serverKeys,
  signOrder
} from "./Parties.ts"

const refusedWith = (code: DeviceApiErrorCode) =>
  new ServerRefused({ code, message: "simulated", retryAfterMs: null })

/** Size of the pieces a payload comes in. */
const blockBytes = 1_000

export class ScriptedServer {
  online = true
  /** What Tor or a proxy tells of it while it is not online. */
  code: RouteFailure | null = null
  roots: Array<DsseEnvelope> = [firstRootEnvelope.envelope]
  admission: DsseEnvelope | null = null
  preauthorisation: DsseEnvelope | null = null
  status: "pending" | "accepted" | "rejected" | "revoked" = "pending"
  objection: "ledger_rolled_back" | "cloned" | "not_enrolled" | null = null
  sleepMs = 0
  /** How far its clock is ahead of the device's. */
  aheadMs = 0
  /** Orders to offer, in order, as long as no receipt names them and they lie above the high-water mark. */
  readonly offers: Array<{ readonly envelope: DsseEnvelope; readonly order: WorkOrder | null }> = []
  readonly cancels: Array<DsseEnvelope> = []
  readonly stops: Array<OrderId> = []
  readonly payloads = new Map<Digest, Uint8Array>()
  readonly output = new Map<OrderId, Map<number, Uint8Array>>()
  readonly artifacts = new Map<OrderId, Uint8Array>()
  readonly receipts: Array<Receipt> = []
  readonly polls: Array<PollRequest> = []
  readonly progress: Array<OrderProgress> = []
  readonly health: Array<HealthReport> = []
  readonly enrolments: Array<DsseEnvelope> = []
  /** Where it says that newcomers reach it. */
  enrolAddresses: ReadonlyArray<string> = []
  /** Whether it is reached through Tor. */
  hasCircuits = false
  /** How long each block of a payload takes. */
  blockMs = 0
  /** Answers these calls with a refusal, as long as the test says so. */
  refusals: Partial<Record<"output" | "artifacts" | "receipts" | "poll" | "payload", DeviceApiErrorCode>> = {}
  /** Receipts that are not acknowledged although they came. */
  readonly unacknowledged = new Set<number>()
  /** Offers go out even if the device says it is blocked or full. */
  rude = false
  /** Offers go out, in their order, even if no lane is free. */
  deaf = false
  private wakeUp = Deferred.makeUnsafe<void>()

  private unreachable(): ServerUnreachable {
    const code = this.code === null ? {} : { code: this.code }
    return new ServerUnreachable({ address: "sim", reason: "simulated", ...code })
  }

  /** Something changed: polls that are held open look again. */
  stir(): void {
    const before = this.wakeUp
    this.wakeUp = Deferred.makeUnsafe<void>()
    Deferred.doneUnsafe(before, Effect.void)
  }

  /** Submits the n-th order, with its payload. */
  submit(n: number, plan: PackagePlan, changes: Partial<WorkOrder> = {}, key?: Key): WorkOrder {
    const order = orderOf(n, plan, changes)
    const payload = payloadOf(n, plan)
    this.payloads.set(payload.digest, payload.bytes)
    this.offers.push({ envelope: signOrder(order, key).envelope, order })
    this.stir()
    return order
  }

  /** Offers an envelope as it is. */
  offer(envelope: DsseEnvelope): void {
    this.offers.push({ envelope, order: null })
    this.stir()
  }

  receiptOf(order: OrderId): Receipt | undefined {
    return this.receipts.find((receipt) => receipt.order === order)
  }

  private take(receipts: ReadonlyArray<DsseEnvelope>) {
    const acknowledged: Array<{ readonly number: number; readonly digest: Digest }> = []
    for (const envelope of receipts) {
      const verified = verifyReceipt(engine, device, deviceKeys.signingKey, envelope)
      if (verified._tag === "Failure") throw verified.failure
      const { digest, document } = verified.success
      if (!this.receipts.some((known) => known.number === document.number)) this.receipts.push(document)
      if (!this.unacknowledged.has(document.number)) acknowledged.push({ number: document.number, digest })
    }
    return { acknowledged }
  }

  private ordersFor(request: PollRequest): ReadonlyArray<DsseEnvelope> {
    if (!this.rude && !this.deaf && (request.blocked !== null || request.free_lanes.length === 0)) return []
    const settled = new Set(this.receipts.map((receipt) => receipt.order_digest))
    const mark = request.high_water
    return this.offers
      .filter(({ envelope, order }) => {
        const digest = digestOf(engine, Buffer.from(envelope.payload, "base64"))
        if (settled.has(digest)) return false
        return order === null || mark === null || order.counter > mark.counter || this.rude
      })
      .map(({ envelope }) => envelope)
      .slice(0, 16)
  }

  /** The port, for one life of a device; `alive` says whether it still may talk. */
  link(alive: () => boolean): ServerLink["Service"] {
    const reach = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E | ServerUnreachable> =>
      Effect.suspend((): Effect.Effect<A, E | ServerUnreachable> => {
        if (!alive()) return Effect.never
        return this.online ? effect : Effect.fail(this.unreachable())
      })
    const answer = <A>(make: () => A, refusal?: keyof ScriptedServer["refusals"]) =>
      reach(
        Effect.gen({ self: this }, function* () {
          const code = refusal === undefined ? undefined : this.refusals[refusal]
          if (code !== undefined) return yield* refusedWith(code)
          const serverTimeMs = (yield* Clock.currentTimeMillis) + this.aheadMs
          return {
            body: make(),
            serverTimeMs,
            rootVersion: this.roots.length === 0 ? null : this.roots.length
          }
        })
      )
    const pollAnswer = (request: PollRequest) => {
      const seen = new Set<string>(request.cancels_seen)
      const active = new Set<string>(request.active.map((entry) => entry.order))
      return {
        orders: this.objection === null ? this.ordersFor(request) : [],
        cancels: this.cancels.filter(
          (cancel) => !seen.has(JSON.parse(Buffer.from(cancel.payload, "base64").toString()).order)
        ),
        stops: this.stops.filter((order) => active.has(order)),
        admission:
          this.admission !== null && sequenceOf(this.admission) > request.admission_sequence
            ? this.admission
            : null,
        objection: this.objection,
        sleep_ms: this.sleepMs
      }
    }
    return ServerLink.of({
      identity: reach(
        Effect.succeed({
          type: "postern/server-identity/v1" as const,
          server,
          signing_key: serverKeys.signingKey,
          recipient: serverKeys.recipient,
          addresses: ["http://127.0.0.1:8470"],
          enrol_addresses: this.enrolAddresses
        })
      ),
      roots: (from) => reach(Effect.sync(() => ({ roots: this.roots.slice(from - 1, from + 15) }))),
      trust: () => Effect.void,
      enrol: (request) =>
        answer(() => {
          this.enrolments.push(request)
          const { admission, preauthorisation, status } = this
          return { status, admission, preauthorisation }
        }),
      poll: (request) =>
        Effect.gen({ self: this }, function* () {
          this.polls.push(request)
          const hasNews = () => {
            const { admission, cancels, orders, stops } = pollAnswer(request)
            return (
              orders.length + cancels.length + stops.length > 0 ||
              admission !== null ||
              !this.online ||
              this.refusals.poll !== undefined
            )
          }
          const wait = Effect.suspend(() => Deferred.await(this.wakeUp)).pipe(
            Effect.repeat({ while: () => !hasNews() })
          )
          if (!hasNews()) yield* Effect.timeoutOption(wait, request.wait_ms)
          return yield* answer(() => pollAnswer(request), "poll")
        }),
      payload: (digest, offset) =>
        Stream.unwrap(
          Effect.map(
            answer(() => this.payloads.get(digest), "payload"),
            ({ body }): Stream.Stream<Uint8Array, LinkError> => {
              if (body === undefined) return Stream.fail(refusedWith("not_found"))
              const starts = Array.from(
                { length: Math.ceil((body.length - offset) / blockBytes) },
                (_, index) => offset + index * blockBytes
              )
              return Stream.fromIterable(starts).pipe(
                Stream.mapEffect((start) =>
                  reach(
                    Effect.delay(Effect.succeed(body.slice(start, start + blockBytes)), this.blockMs)
                  ).pipe(Effect.tap(() => (this.online ? Effect.void : Effect.fail(this.unreachable()))))
                )
              )
            }
          )
        ),
      hasCircuits: Effect.sync(() => this.hasCircuits),
      messaging: reach(Effect.suspend(() => Effect.fail(refusedWith("no_messaging")))),
      progress: (report) => answer(() => void this.progress.push(...report.events)),
      output: (order, sequence, chunk) =>
        answer(() => {
          const chunks = this.output.get(order) ?? new Map<number, Uint8Array>()
          this.output.set(order, chunks.set(sequence, chunk))
        }, "output"),
      artifacts: (order, offset, _totalBytes, block) =>
        answer(() => {
          const there = this.artifacts.get(order) ?? new Uint8Array(0)
          if (offset === there.length) this.artifacts.set(order, Uint8Array.from([...there, ...block]))
          return { received_bytes: this.artifacts.get(order)?.length ?? 0 }
        }, "artifacts"),
      receipts: (delivery) => answer(() => this.take(delivery.receipts), "receipts"),
      health: (report) => answer(() => void this.health.push(report))
    })
  }
}

const sequenceOf = (envelope: DsseEnvelope): number =>
  JSON.parse(Buffer.from(envelope.payload, "base64").toString()).sequence

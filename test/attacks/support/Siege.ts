/**
 * The real device and the real server with an enemy between them, in one process and virtual time. The enemy sees and
 * changes what travels; where a test says so it also holds the server's own keys.
 */
import { Clock, Effect, Redacted, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { ApiHandler, ApiRequest, ApiResponse } from "../../../src/adapters/http/Exchange.ts"
import { encodeJson } from "../../../src/adapters/http/Json.ts"
import { handlerTransport, type Transport } from "../../../src/adapters/http/Transport.ts"
import { SignedLink } from "../../../src/adapters/SignedLink.ts"
import { encodeBase64 } from "../../../src/crypto/Base64.ts"
import { digestOf, signDocument } from "../../../src/crypto/Documents.ts"
import type { JobRow } from "../../../src/ports/FleetStore.ts"
import { deviceApiPath, type PollAnswer } from "../../../src/schemas/DeviceApi.ts"
import type { DsseEnvelope } from "../../../src/schemas/Dsse.ts"
import type { Digest, Nonce, OrderId } from "../../../src/schemas/Ids.ts"
import { type Statement, statementHeader } from "../../../src/schemas/Statement.ts"
import type { WorkOrder } from "../../../src/schemas/WorkOrder.ts"
import {
  admissionOf,
  device as deviceId,
  engine,
  type Key,
  orderOf,
  type PackagePlan,
  payloadOf,
  rootOf,
  server as serverId,
  serverKeys,
  signAdmission,
  signOrder,
  signRoot
} from "../../actors/support/Parties.ts"
import { TestDevice } from "../../actors/support/TestDevice.ts"
import { SimServer } from "../../sim/SimServer.ts"

export const origin = "http://127.0.0.1:8470"
export const good: PackagePlan = { script: ["out:fine", "leave:result:10", "exit:0"], artifacts: ["result"] }

/** What the enemy makes of an answer on its way. */
export type Bend = (response: ApiResponse, request: ApiRequest) => ApiResponse

/** The bytes of an answer; a streamed one of this server's memory is whole at once. */
export const bytesOf = (response: ApiResponse): Effect.Effect<Uint8Array> =>
  response.body instanceof Uint8Array
    ? Effect.succeed(response.body)
    : Effect.orDie(Effect.map(Stream.runCollect(response.body.bytes), (parts) => Buffer.concat([...parts])))

/** An answer as the server itself would sign it: what an enemy does who holds the server's keys. */
export const signedBy = (
  request: ApiRequest,
  value: unknown,
  changes: Partial<Statement> & { readonly bodyBytes?: Uint8Array } = {},
  keys = serverKeys
): ApiResponse => {
  const { bodyBytes, ...claims } = changes
  const body = bodyBytes ?? encodeJson(value)
  const statement: Statement = {
    type: "postern/statement/v1",
    server: serverId,
    device: deviceId,
    nonce: (/nonce="([a-z2-7]{26})"/.exec(request.headers["signature-input"] ?? "")?.[1] ?? "") as Nonce,
    at_ms: 0,
    status: 200,
    body_digest: digestOf(engine, body),
    root_version: 1,
    ...claims
  }
  const { envelope } = signDocument(engine, "statement", statement, [
    { keyId: keys.id, seed: Redacted.value(keys.signingSeed) }
  ])
  return {
    status: statement.status,
    headers: { "content-type": "application/json", [statementHeader]: encodeBase64(encodeJson(envelope)) },
    body
  }
}

const emptyPoll: PollAnswer = {
  orders: [],
  cancels: [],
  stops: [],
  admission: null,
  objection: null,
  sleep_ms: 1_000
}

export class Siege {
  readonly server: SimServer
  readonly device: TestDevice
  /** Everything that passed: what an eavesdropper has. */
  readonly seen: Array<{ readonly request: ApiRequest; readonly response: ApiResponse }> = []
  /** Answers to paths that contain the key, changed on their way. */
  readonly bends = new Map<string, Bend>()
  /** Requests the enemy answers by itself. */
  readonly lies = new Map<string, (request: ApiRequest) => ApiResponse>()
  private counter = 0

  constructor(clock: Clock.Clock) {
    this.server = new SimServer(origin, clock, () => undefined)
    this.device = new TestDevice({
      accepted: false,
      config: { long_poll_ms: 10_000 },
      link: (alive) => SignedLink({ transport: this.transport(alive), addresses: [origin] })
    })
  }

  private readonly wire: ApiHandler = (request) =>
    Effect.gen({ self: this }, function* () {
      const keyOf = <A>(of: ReadonlyMap<string, A>) =>
        [...of].find(([part]) => request.path.includes(part))?.[1]
      const lie = keyOf(this.lies)
      if (lie !== undefined) return lie(request)
      const handler = this.server.life?.handler
      if (handler === undefined) return { status: 502, headers: {}, body: new Uint8Array(0) }
      const honest = yield* handler(request)
      const response = keyOf(this.bends)?.(honest, request) ?? honest
      this.seen.push({ request, response })
      return response
    })

  private transport(alive: () => boolean): Transport {
    const inner = handlerTransport(() => this.wire)
    return { send: (request) => Effect.suspend(() => (alive() ? inner.send(request) : Effect.never)) }
  }

  /** Answers polls in the server's name and with its keys. The time goes on. */
  readonly pollsSay = (answer: Partial<PollAnswer>, claims: Partial<Statement> = {}) =>
    Effect.map(Clock.Clock, (clock) => {
      this.lies.set("/poll", (request) =>
        signedBy(request, { ...emptyPoll, ...answer }, { at_ms: clock.currentTimeMillisUnsafe(), ...claims })
      )
    })

  readonly honest = Effect.sync(() => {
    this.lies.clear()
    this.bends.clear()
  })

  /** Signs the next order, uploads its payload and submits it. */
  readonly submit = (n: number, plan: PackagePlan = good, changes: Partial<WorkOrder> = {}, key?: Key) =>
    Effect.gen({ self: this }, function* () {
      const order = orderOf(n, plan, { counter: ++this.counter, ...changes })
      const { bytes, digest } = payloadOf(n, plan)
      const { envelope } = signOrder(order, key)
      yield* (this.server.life as NonNullable<SimServer["life"]>).blobs.write(
        { kind: "payload", digest },
        0,
        bytes.length,
        bytes
      )
      yield* this.server.device(deviceId)?.ask("Submit", { envelope, actor: "operator" }) ?? Effect.void
      return { order, envelope, digest: digestOf(engine, Buffer.from(envelope.payload, "base64")) }
    }).pipe(Effect.orDie)

  readonly job = (order: OrderId): Effect.Effect<JobRow | null> =>
    Effect.orDie((this.server.life as NonNullable<SimServer["life"]>).store.job(order))

  /** Moves time until the server has a job's receipt. */
  readonly ended = (order: OrderId, limitMs = 600_000) =>
    Effect.gen({ self: this }, function* () {
      for (let passedMs = 0; passedMs < limitMs; passedMs += 500) {
        const job = yield* this.job(order)
        if (job !== null && ["succeeded", "failed", "rejected", "canceled"].includes(job.state)) return job
        yield* TestClock.adjust(500)
      }
      return yield* Effect.die(new Error(`the job ${order} did not end`))
    })

  /** The device does good work again, whatever the enemy tried. */
  readonly goesOn = (n = 90) =>
    Effect.gen({ self: this }, function* () {
      yield* this.honest
      const { order } = yield* this.submit(n)
      return (yield* this.ended(order.id)).state
    })

  runsOf(order: OrderId): number {
    return this.device.host.runs.filter((run) => run.order === order).length
  }

  /** What the device wrote of refusals and ends, from its own chain as the server has it. */
  readonly receipts = Effect.suspend(() => {
    const bodies = this.seen.filter(({ request }) => request.path === `${deviceApiPath}/receipts`)
    return Effect.succeed(
      bodies.flatMap(({ request }) => {
        const { receipts } = JSON.parse(Buffer.from(request.body).toString()) as {
          receipts: ReadonlyArray<DsseEnvelope>
        }
        return receipts.map(
          (envelope) =>
            JSON.parse(Buffer.from(envelope.payload, "base64").toString()) as {
              order: OrderId | null
              order_digest: Digest
              state: string
              reason: string | null
            }
        )
      })
    )
  })
}

/** A device that was accepted by a server, and an enemy who has done nothing yet. */
export const siege = Effect.acquireRelease(
  Effect.gen(function* () {
    const besieged = new Siege(yield* Clock.Clock)
    const { device, server } = besieged
    yield* server.start
    const root = signRoot(rootOf())
    yield* server.registrar?.ask("PublishRoot", { envelope: root.envelope, actor: "operator" }) ?? Effect.void
    yield* device.start
    const store = (server.life as NonNullable<SimServer["life"]>).store
    while ((yield* store.device(deviceId)) === null) yield* TestClock.adjust(500)
    const envelope = signAdmission(admissionOf(device.ledger?.incarnation as never))
    yield* server.registrar?.ask("Admit", { device: deviceId, envelope, actor: "operator" }) ?? Effect.void
    const polled = () => besieged.seen.filter(({ request }) => request.path.endsWith("/poll")).length > 1
    yield* device.until(polled, "the first polls")
    return besieged
  }).pipe(Effect.orDie),
  ({ device, server }) =>
    Effect.gen(function* () {
      yield* device.crash
      yield* server.kill
      yield* TestClock.adjust(60_000)
      device.database.close()
      server.close()
    })
)

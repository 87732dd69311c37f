/** What each signed endpoint of the device API does, once it is known who asks. */
import { Clock, Deferred, Duration, Effect, Result, type Schema, Stream } from "effect"
import { BlobStore } from "../../ports/BlobStore.ts"
import { FleetStore } from "../../ports/FleetStore.ts"
import { FleetTrust } from "../../ports/FleetTrust.ts"
import {
  type BlockAnswer,
  type EnrolmentAnswer,
  type PollAnswer,
  PollRequest,
  ProgressReport,
  type ReceiptAcknowledgement,
  ReceiptDelivery
} from "../../schemas/DeviceApi.ts"
import { DsseEnvelope } from "../../schemas/Dsse.ts"
import { HealthReport } from "../../schemas/Health.ts"
import type { DeviceId, Digest, OrderId } from "../../schemas/Ids.ts"
import { Limits } from "../../schemas/Limits.ts"
import type { MessagingOffer } from "../../schemas/MessagingOffer.ts"
import { sequenceLimit } from "../../schemas/OutputFrames.ts"
import { NotAccepted } from "../../schemas/protocols/Device.ts"
import type { Ticket } from "../../schemas/protocols/Ticket.ts"
import { type DeviceRefusal, refuse, refusing } from "./DeviceRefusal.ts"
import type { StreamedBody } from "./Exchange.ts"
import { firstBytes } from "./FirstBytes.ts"
import { decodeJson } from "./Json.ts"
import type { ServerActors } from "./ServerActors.ts"

/** A request whose sender is proven. */
export interface Proven {
  readonly device: DeviceId
  /** By the device's own clock. */
  readonly createdMs: number
  readonly body: Uint8Array
}

/** An answer before it is signed: a JSON value, or the ciphertext of a payload. */
export type Answer =
  | { readonly kind: "json"; readonly value: unknown }
  | {
      readonly kind: "payload"
      readonly digest: Digest
      readonly offset: number
      readonly sizeBytes: number
      readonly body: StreamedBody
    }

const json = (value: unknown): Answer => ({ kind: "json", value })

const decode = <A>(schema: Schema.Codec<A, unknown>, body: Uint8Array): Effect.Effect<A, DeviceRefusal> => {
  const decoded = decodeJson(schema, body, Limits.requestBodyBytes)
  return Result.isSuccess(decoded)
    ? Effect.succeed(decoded.success)
    : Effect.fail(
        refuse("bad_request", `the body is not what this path takes: ${decoded.failure}`.slice(0, 400))
      )
}

const pollEndpoint = (actors: ServerActors, stopping: Effect.Effect<void>, trust: FleetTrust["Service"]) => {
  /** Waits outside the actor; whoever gives up withdraws. A new root ends every wait: the answer tells of it. */
  const waitFor = (device: DeviceId, ticket: Ticket<PollAnswer>, newRoot: Effect.Effect<void>) => {
    const ref = actors.device(device)
    const ends = [Effect.sleep(Duration.millis(ticket.waitMs)), stopping, newRoot]
    const collect = Effect.suspend(() => ref.ask("Collect", { ticket: ticket.id }))
    // One race of all: thousands wait, and each race within another would cost a fiber of its own.
    return Effect.raceAllFirst([
      Deferred.await(ticket.answer),
      ...ends.map((end) => Effect.as(end, null))
    ]).pipe(
      Effect.flatMap((answer) => (answer === null ? collect : Effect.succeed(answer))),
      Effect.onInterrupt(() => Effect.ignore(ref.tell("Withdraw", { ticket: ticket.id })))
    )
  }
  return Effect.fnUntraced(function* ({ body, createdMs, device }: Proven) {
    const request = yield* decode(PollRequest, body)
    const newRoot = trust.changed()
    const ticket = yield* refusing(actors.device(device).ask("Poll", { request, createdMs }))
    const isAnswered = Deferred.isDoneUnsafe(ticket.answer)
    const answer = isAnswered ? Deferred.await(ticket.answer) : waitFor(device, ticket, newRoot)
    return json(yield* refusing(answer))
  })
}

const enrolmentEndpoint = (actors: ServerActors) =>
  Effect.fnUntraced(function* ({ body, device }: Proven) {
    const envelope = yield* decode(DsseEnvelope, body)
    const answer: EnrolmentAnswer = yield* refusing(actors.registrar.ask("Enrol", { device, envelope }))
    return json(answer)
  })

/** Fails unless the device is accepted. */
const requireAccepted = (actors: ServerActors, device: DeviceId) =>
  refusing(
    Effect.flatMap(actors.device(device).ask("Standing"), (standing) =>
      standing === "accepted" ? Effect.void : Effect.fail(new NotAccepted({ device, standing }))
    )
  )

/** A transfer is looked at again after so many bytes, and on a slow line after so long. */
const lookAgainBytes = 512 * 1024
const lookAgainMs = 1_000

/** Cuts a transfer off once the device is turned away. */
const whileAccepted = <E>(actors: ServerActors, device: DeviceId, bytes: Stream.Stream<Uint8Array, E>) => {
  let sentBytes = 0
  let lookedMs: number | null = null
  return Stream.mapEffect(bytes, (part) =>
    Effect.flatMap(Clock.currentTimeMillis, (nowMs): Effect.Effect<Uint8Array, E | DeviceRefusal> => {
      sentBytes += part.length
      lookedMs ??= nowMs
      if (sentBytes < lookAgainBytes && Math.abs(nowMs - lookedMs) < lookAgainMs) return Effect.succeed(part)
      sentBytes = 0
      lookedMs = nowMs
      return Effect.as(requireAccepted(actors, device), part)
    })
  )
}

const reportEndpoints = (actors: ServerActors) => ({
  progress: Effect.fnUntraced(function* ({ body, device }: Proven) {
    const { events } = yield* decode(ProgressReport, body)
    yield* refusing(actors.device(device).ask("Progress", { events }))
    return json({ ok: true })
  }),
  receipts: Effect.fnUntraced(function* ({ body, device }: Proven) {
    const { receipts } = yield* decode(ReceiptDelivery, body)
    const answer: ReceiptAcknowledgement = yield* refusing(
      actors.device(device).ask("Receipts", { receipts })
    )
    return json(answer)
  }),
  health: Effect.fnUntraced(function* ({ body, device }: Proven) {
    const report = yield* decode(HealthReport, body)
    yield* requireAccepted(actors, device)
    const receivedAtMs = yield* Clock.currentTimeMillis
    yield* refusing(actors.recorder.tell("Health", { device, report, receivedAtMs }))
    return json({ ok: true })
  })
})

const resultEndpoints = (actors: ServerActors) =>
  Effect.gen(function* () {
    const store = yield* FleetStore
    const blobs = yield* BlobStore
    const requireOwn = Effect.fnUntraced(function* (device: DeviceId, order: OrderId) {
      yield* requireAccepted(actors, device)
      const job = yield* refusing(store.job(order))
      if (job?.device !== device) return yield* refuse("not_found", "the device has no such order")
      if (job.resultsPruned !== null)
        return yield* refuse("gone", "the order's results are not kept any more")
    })
    const announce = (order: OrderId) => Effect.ignore(actors.jobWatch.tell("Changed", { orders: [order] }))

    return {
      output: Effect.fnUntraced(function* ({ body, device }: Proven, order: OrderId, sequence: number) {
        if (sequence >= sequenceLimit)
          return yield* refuse("bad_request", "an order has fewer chunks of output")
        if (body.length === 0) return yield* refuse("bad_request", "the chunk is empty")
        yield* requireOwn(device, order)
        const added = yield* refusing(store.addOutput(device, order, sequence, body))
        if (!added) return yield* refuse("conflict", "another chunk stands at this place")
        yield* announce(order)
        return json({ ok: true })
      }),
      artifacts: Effect.fnUntraced(function* (
        { body, device }: Proven,
        order: OrderId,
        offset: number,
        totalBytes: number
      ) {
        yield* requireOwn(device, order)
        const received = yield* blobs.write({ kind: "artifacts", order }, offset, totalBytes, body).pipe(
          Effect.catchTag("BlobConflict", (error) =>
            // Ahead of us or behind: the answer says where to go on.
            error.receivedBytes !== offset && error.receivedBytes <= totalBytes
              ? Effect.succeed(error.receivedBytes)
              : Effect.fail(refuse("conflict", error.reason))
          ),
          refusing
        )
        yield* refusing(store.artifactsReceived(device, order, received))
        yield* announce(order)
        const answer: BlockAnswer = { received_bytes: received }
        return json(answer)
      })
    }
  })

/** A payload, or a part of it, for a device with an unfinished order that names it. */
const payloadEndpoint = (actors: ServerActors) =>
  Effect.gen(function* () {
    const store = yield* FleetStore
    const blobs = yield* BlobStore
    return Effect.fnUntraced(function* (
      device: DeviceId,
      digest: Digest,
      offset: number,
      until: number | null
    ) {
      yield* requireAccepted(actors, device)
      const use = yield* refusing(store.payloadUse(device, digest))
      if (use === "none") return yield* refuse("not_found", "no order of the device names this payload")
      if (use === "finished") return yield* refuse("gone", "the orders with this payload have ended")
      const blob = yield* blobs.read({ kind: "payload", digest }, offset).pipe(
        Effect.catchTag("BlobMissing", () => Effect.fail(refuse("not_found", "the payload is not here"))),
        refusing
      )
      const { bytes, sizeBytes } = blob
      if (offset >= sizeBytes) return yield* refuse("bad_request", `the payload has only ${sizeBytes} bytes`)
      const lengthBytes = Math.min(until ?? sizeBytes, sizeBytes) - offset
      return {
        kind: "payload",
        digest,
        offset,
        sizeBytes,
        body: { lengthBytes, bytes: whileAccepted(actors, device, firstBytes(bytes, lengthBytes)) }
      } as const
    })
  })

/** How an accepted device reaches the MQTT broker. */
export type MessagingOfferOf = (
  device: DeviceId,
  actors: ServerActors
) => Effect.Effect<MessagingOffer, DeviceRefusal>

const messagingEndpoint = (actors: ServerActors, offer: MessagingOfferOf | null) =>
  Effect.fnUntraced(function* ({ device }: Proven) {
    yield* requireAccepted(actors, device)
    if (offer === null) return yield* refuse("no_messaging", "this server carries no messages")
    return json(yield* offer(device, actors))
  })

/** All signed endpoints. */
export const makeEndpoints = (
  actors: ServerActors,
  stopping: Effect.Effect<void>,
  offer: MessagingOfferOf | null
) =>
  Effect.map(
    Effect.all([resultEndpoints(actors), payloadEndpoint(actors), FleetTrust]),
    ([results, payload, trust]) => ({
      payload,
      poll: pollEndpoint(actors, stopping, trust),
      enrolment: enrolmentEndpoint(actors),
      messaging: messagingEndpoint(actors, offer),
      ...reportEndpoints(actors),
      ...results
    })
  )

export type DeviceEndpoints = Effect.Success<ReturnType<typeof makeEndpoints>>

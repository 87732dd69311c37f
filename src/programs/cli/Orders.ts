/**
 * Orders: their place in the device's sequence, their signature, and their way to the server.
 *
 * @module
 */
import { Clock, Effect, Result } from "effect"
import { Flag } from "effect/cli"
import { changeDeviceRecord, deviceRecord } from "../../adapters/operator/DeviceBook.ts"
import { ManagementClient, type ServerProblem } from "../../adapters/operator/ManagementClient.ts"
import { OperatorHome, readJson, writeJson } from "../../adapters/operator/OperatorHome.ts"
import type { OperatorKeys } from "../../adapters/operator/OperatorKeys.ts"
import { forgottenBy } from "../../adapters/operator/ReceiptChain.ts"
import { type DeviceRecord, SentOrder, sentOrderFile } from "../../adapters/operator/Records.ts"
import type { PlannedPlace } from "../../adapters/operator/RolloutRecords.ts"
import { verifyPastOrder } from "../../adapters/operator/TrustStore.ts"
import { uuidV7 } from "../../crypto/Unguessable.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { Entropy } from "../../ports/Entropy.ts"
import { type DeviceId, type Digest, OrderId } from "../../schemas/Ids.ts"
import { Limits } from "../../schemas/Limits.ts"
import type { LaneName, PayloadReference, WorkOrder } from "../../schemas/WorkOrder.ts"
import { raise } from "./Alarms.ts"
import { failure, usage } from "./Failure.ts"
import { durationFlag, optionalDurationFlag } from "./Flags.ts"
import { requireRoot } from "./Settings.ts"

/** How often a submission takes another counter because somebody else was faster. */
const sequenceAttempts = 8
/** How often one request of a submission is made, when the server is not reached; between them it waits. */
const requestAttempts = 4
const retryDelayMs = 750
/** When a receipt is expected at the latest, if nobody says otherwise. */
const defaultDeadlineMs = 86_400_000

/** Flags of every command that signs an order. */
export const orderFlags = {
  service: Flag.Boolean("service").pipe(
    Flag.withDescription("A short request that runs even while a job runs"),
    Flag.withDefault(false),
    Flag.withoutNegation
  ),
  expires: durationFlag("expires", "Not begun after this time", "7d"),
  deadline: optionalDurationFlag(
    "deadline",
    "When the receipt must be here, else there is an alarm; default 1d, or --expires"
  ),
  sealed: Flag.Boolean("sealed").pipe(
    Flag.withDescription("Results for the operator alone; else the server can read them too"),
    Flag.withDefault(false),
    Flag.withoutNegation
  )
}

/** The values of {@link orderFlags}. */
export type OrderValues = {
  readonly [Key in keyof typeof orderFlags]: (typeof orderFlags)[Key] extends Flag.Flag<infer A> ? A : never
}

/** What an order is to say, apart from its place in the sequence. */
export interface OrderPlan {
  readonly device: DeviceId
  readonly payload: typeof PayloadReference.Type
  /** For lists: what the package is called. */
  readonly name: string
  readonly lane: LaneName
  readonly lifetimeMs: number
  readonly deadlineMs: number
  readonly sealed: boolean
  /** Where a rollout planned the order; null for one that stands alone. */
  readonly rollout: PlannedPlace | null
}

/** An order's terms from the command line. */
export const planOrder = (
  record: DeviceRecord,
  package_: { readonly payload: OrderPlan["payload"]; readonly manifest: { readonly name: string } },
  flags: OrderValues
) =>
  Effect.gen(function* () {
    if (flags.expires <= 0 || flags.expires > Limits.orderLifetimeMs)
      return yield* usage("--expires must be between 1ms and 90d")
    const deadlineMs =
      flags.deadline._tag === "Some" ? flags.deadline.value : Math.min(defaultDeadlineMs, flags.expires)
    return {
      device: record.device,
      payload: package_.payload,
      name: package_.manifest.name,
      lane: flags.service ? "service" : "job",
      lifetimeMs: flags.expires,
      deadlineMs,
      sealed: flags.sealed,
      rollout: null
    } satisfies OrderPlan
  })

/** A place in a device's sequence. */
interface Place {
  readonly counter: number
  readonly previous: Digest | null
}

/** Signs an order for a place and keeps it: from now on this home knows what it signed. */
export const signOrder = (keys: OperatorKeys, plan: OrderPlan, place: Place) =>
  Effect.gen(function* () {
    const { root } = yield* requireRoot
    const record = yield* deviceRecord(plan.device)
    const nowMs = yield* Clock.currentTimeMillis
    const server = root.servers.find((candidate) => candidate.id === record?.server)
    const readers = [
      keys.profile.recipient,
      ...(plan.sealed || server === undefined ? [] : [server.recipient])
    ]
    const order: WorkOrder = {
      type: "postern/order/v1",
      id: plan.rollout?.order ?? OrderId.make(yield* uuidV7(yield* Entropy)),
      device: plan.device,
      lane: plan.lane,
      counter: place.counter,
      previous: place.previous,
      root_version: root.version,
      issued_at_ms: nowMs,
      expires_at_ms: plan.rollout?.expiresAtMs ?? nowMs + plan.lifetimeMs,
      deadline_at_ms: plan.rollout?.expiresAtMs ?? nowMs + plan.deadlineMs,
      payload: plan.payload,
      results_to: readers
    }
    const { digest, envelope } = keys.sign("order", order)
    const sent: SentOrder = {
      type: "postern/sent-order/v1",
      order: order.id,
      device: plan.device,
      lane: plan.lane,
      counter: place.counter,
      digest,
      envelope,
      name: plan.name,
      submitted: false,
      deadline_at_ms: order.deadline_at_ms,
      ...(plan.rollout === null ? {} : { rollout: plan.rollout.id }),
      receipt: null
    }
    yield* writeJson(sentOrderFile(order.id), SentOrder, sent)
    return sent
  })

/** Whether an order with this digest was signed by an operator: by us, or by another whose order the server shows. */
const isSignedPredecessor = (device: DeviceId, digest: Digest) =>
  Effect.gen(function* () {
    const home = yield* OperatorHome
    const engine = yield* CryptoEngine
    const client = yield* ManagementClient
    const trusted = yield* requireRoot
    for (const name of (yield* home.list("orders")).toReversed()) {
      const sent = yield* readJson(`orders/${name}`, SentOrder)
      if (sent?.digest === digest && sent.device === device) return true
    }
    const { jobs } = yield* client.call("list the device's orders", (api) =>
      api.jobs.list({ query: { device } })
    )
    const shown = jobs.find((job) => job.digest === digest)
    if (shown === undefined) return false
    const verified = verifyPastOrder(engine, trusted, shown.order)
    return (
      Result.isSuccess(verified) &&
      verified.success.digest === digest &&
      verified.success.document.device === device
    )
  })

/** The next place in a device's sequence: the server's word, held against the device book. */
export const nextPlace = (record: DeviceRecord) =>
  Effect.gen(function* () {
    const client = yield* ManagementClient
    const sequence = yield* client.call("ask for the device's sequence", (api) =>
      api.devices.sequence({ params: { device: record.device } })
    )
    yield* raise(forgottenBy(record, { nextCounter: sequence.next_counter, previous: sequence.previous }))
    const isKnown = sequence.previous === null || sequence.previous === record.last_order?.digest
    if (!isKnown && !(yield* isSignedPredecessor(record.device, sequence.previous))) {
      yield* raise([
        `the server names a predecessor for the next order of ${record.name} that no operator of your root signed (${sequence.previous})`
      ])
    }
    return { counter: sequence.next_counter, previous: sequence.previous } satisfies Place
  })

/**
 * The place behind every order that was signed here for the device and not sent yet, so that several can be signed before
 * the first is sent.
 */
export const placeBehindPending = (device: DeviceId, place: Place) =>
  Effect.gen(function* () {
    const home = yield* OperatorHome
    const nowMs = yield* Clock.currentTimeMillis
    let last = place
    for (const name of yield* home.list("orders")) {
      const sent = yield* readJson(`orders/${name}`, SentOrder)
      const isPending =
        sent !== undefined &&
        sent.device === device &&
        sent.rollout === undefined &&
        !sent.submitted &&
        sent.deadline_at_ms > nowMs
      if (isPending && sent.counter >= last.counter)
        last = { counter: sent.counter + 1, previous: sent.digest }
    }
    return last
  })

const isPassing = (problem: ServerProblem): boolean =>
  problem.kind === "unreachable" || problem.kind === "unavailable"

const maybeTaken = (order: OrderId): string =>
  `The order may have been taken all the same. Send the same one again, which is safe: postern jobs submit --resume ${order}`

/** Tries a request again when the server is not reached: what it changes is idempotent. */
const insistently = <A, R>(request: Effect.Effect<A, ServerProblem, R>): Effect.Effect<A, ServerProblem, R> =>
  Effect.gen(function* () {
    for (let attempt = 1; ; attempt++) {
      const result = yield* Effect.result(request)
      if (Result.isSuccess(result)) return result.success
      if (!isPassing(result.failure) || attempt === requestAttempts) return yield* result.failure
      yield* Effect.sleep(retryDelayMs * attempt)
    }
  })

/** Gives a signed order to the server and writes into the book that it was taken. */
export const sendOrder = (sent: SentOrder, rootVersion: number) =>
  Effect.gen(function* () {
    const client = yield* ManagementClient
    const view = yield* insistently(
      client.call("submit the order", (api) => api.jobs.submit({ payload: sent.envelope }))
    )
    yield* writeJson(sentOrderFile(sent.order), SentOrder, { ...sent, submitted: true })
    // One that waits for its phase is not the device's last: others pass below it.
    if (sent.rollout !== undefined) return view
    yield* changeDeviceRecord(sent.device, (record) =>
      record.last_order === null || record.last_order.counter < sent.counter
        ? { ...record, last_order: { root_version: rootVersion, counter: sent.counter, digest: sent.digest } }
        : record
    )
    return view
  })

/** Signs and submits, taking another counter as often as somebody else was faster. The payload must be there. */
export const submitOrder = (keys: OperatorKeys, plan: OrderPlan) =>
  Effect.gen(function* () {
    const home = yield* OperatorHome
    const { root } = yield* requireRoot
    /** Undefined when the place was taken meanwhile. */
    const once = Effect.gen(function* () {
      const record = yield* deviceRecord(plan.device)
      if (record === undefined) return yield* failure(`${plan.device} is no longer in the device book`)
      const place = yield* nextPlace(record)
      const isPlanned = plan.rollout !== null
      const counter = isPlanned ? place.counter + Limits.rolloutReserve : place.counter
      const sent = yield* signOrder(keys, plan, { ...place, counter })
      const result = yield* Effect.result(sendOrder(sent, root.version))
      if (Result.isSuccess(result)) return result.success
      const problem = result.failure
      if (problem._tag === "ServerProblem" && isPassing(problem)) {
        return yield* failure(`${problem.message}. ${maybeTaken(sent.order)}`)
      }
      // Nobody has an order that was refused: it leaves no trace.
      if (problem._tag === "ServerProblem") yield* home.remove(sentOrderFile(sent.order))
      if (problem._tag === "ServerProblem" && problem.code === "sequence_taken") return undefined
      return yield* problem
    })
    const submitting = Effect.gen(function* () {
      for (let attempt = 0; attempt < sequenceAttempts; attempt++) {
        const view = yield* once
        if (view !== undefined) return view
      }
      return yield* failure("Others submit orders for this device all the time; try again later")
    })
    return yield* home.alone(submitting)
  })

/** What operators do with one device's orders: submit, cancel, stop. Every document is verified before it is stored. */
import { Clock, Effect, Result } from "effect"
import { verifyCancel, verifyOrder } from "../crypto/Trust.ts"
import { BlobStore } from "../ports/BlobStore.ts"
import { CryptoEngine } from "../ports/CryptoEngine.ts"
import { FleetStore } from "../ports/FleetStore.ts"
import { FleetTrust } from "../ports/FleetTrust.ts"
import { type PlannedOrder, RolloutStore } from "../ports/RolloutStore.ts"
import type { DsseEnvelope } from "../schemas/Dsse.ts"
import type { DeviceId, OrderId } from "../schemas/Ids.ts"
import { Conflict, NotFound, Refused } from "../schemas/ManagementApi.ts"
import type { WorkOrder } from "../schemas/WorkOrder.ts"
import { refusalOf, requireGoodRoot } from "./OperatorWord.ts"

const noRoot = new Conflict({ code: "no_root", message: "the server has no trust root yet" })

const conflictTexts = {
  sequence_taken:
    "the order's place in the device's sequence is taken, or lies below one that is: sign it for the next place",
  id_taken: "another order has this id",
  unknown_device: "no accepted device has this id",
  payload_missing: "the payload is not there, or not complete"
} as const

/** Why an order does not fit the rollout that names it, or null. */
const planFlaw = (order: WorkOrder, { device, plan }: PlannedOrder): string | null => {
  const asPlanned =
    order.device === device &&
    order.lane === plan.lane &&
    order.payload.digest === plan.payload.digest &&
    order.expires_at_ms >= plan.expires_at_ms
  return asPlanned ? null : `the order is not as the rollout ${plan.id} plans it`
}

/** Why an order of good operators is none for this device now, or null. */
const orderFlaw = (
  order: WorkOrder,
  facts: { readonly device: DeviceId; readonly rootVersion: number; readonly nowMs: number }
): string | null => {
  if (order.device !== facts.device) return `the order is for ${order.device}`
  if (order.root_version > facts.rootVersion)
    return `the order names root ${order.root_version}, the server holds ${facts.rootVersion}`
  return order.expires_at_ms <= facts.nowMs ? "the order has expired" : null
}

export const makeOrders = (device: DeviceId) =>
  Effect.gen(function* () {
    const store = yield* FleetStore
    const rollouts = yield* RolloutStore
    const blobs = yield* BlobStore
    const engine = yield* CryptoEngine
    const trust = yield* FleetTrust

    const payloadFlaw = Effect.fnUntraced(function* ({ payload }: WorkOrder) {
      const { complete, receivedBytes } = yield* blobs.state({ kind: "payload", digest: payload.digest })
      if (!complete) return new Conflict({ code: "payload_missing", message: conflictTexts.payload_missing })
      return receivedBytes === payload.size_bytes
        ? null
        : new Conflict({
            code: "payload_conflict",
            message: `the order says ${payload.size_bytes} bytes, the payload has ${receivedBytes}`
          })
    })

    return {
      submit: Effect.fnUntraced(function* (envelope: DsseEnvelope, actor: string) {
        const root = trust.current()
        if (root === null) return yield* noRoot
        yield* requireGoodRoot(root)
        const verified = verifyOrder(engine, root.root, envelope)
        if (Result.isFailure(verified)) return yield* refusalOf(verified.failure, envelope, root)
        const { digest, document: order } = verified.success
        const nowMs = yield* Clock.currentTimeMillis
        const flaw = orderFlaw(order, { device, rootVersion: root.root.version, nowMs })
        if (flaw !== null) return yield* new Refused({ message: flaw })
        const planned = yield* rollouts.plannedOrder(order.id)
        const unplanned = planned && planFlaw(order, planned)
        if (unplanned !== null) return yield* new Refused({ message: unplanned })
        const isNew = (yield* store.job(order.id))?.digest !== digest
        if (isNew && planned?.ended === true) {
          return yield* new Conflict({
            code: "rollout_ended",
            message: `the rollout ${planned.plan.id} has ended`
          })
        }
        const missing = yield* payloadFlaw(order)
        if (missing !== null) return yield* missing
        const outcome = yield* store.submit(order, envelope, digest, actor, nowMs)
        if (outcome !== "queued" && outcome !== "same") {
          return yield* new Conflict({ code: outcome, message: conflictTexts[outcome] })
        }
        return order.id
      }),
      cancel: Effect.fnUntraced(function* (id: OrderId, envelope: DsseEnvelope, actor: string) {
        const root = trust.current()
        if (root === null) return yield* noRoot
        // Not under a good root only: stopping is always allowed to those who may order.
        const verified = verifyCancel(engine, root.root, envelope)
        if (Result.isFailure(verified)) return yield* refusalOf(verified.failure, envelope, root)
        const cancel = verified.success.document
        if (cancel.order !== id)
          return yield* new Refused({ message: `the cancel is for the order ${cancel.order}` })
        if (cancel.device !== device)
          return yield* new Refused({ message: `the cancel is for ${cancel.device}` })
        return yield* outcomeOf(yield* store.cancel(cancel, envelope, actor, yield* Clock.currentTimeMillis))
      }),
      stop: Effect.fnUntraced(function* (id: OrderId, actor: string) {
        return yield* outcomeOf(yield* store.requestStop(id, actor, yield* Clock.currentTimeMillis))
      })
    }
  })

const outcomeOf = (outcome: "done" | "finished" | "unknown"): Effect.Effect<void, NotFound | Conflict> => {
  switch (outcome) {
    case "done":
      return Effect.void
    case "finished":
      return Effect.fail(new Conflict({ code: "finished", message: "the job has ended already" }))
    case "unknown":
      return Effect.fail(new NotFound({ message: "there is no such job of this device" }))
  }
}

/**
 * The server's actor for one device. Everything about a device passes here in one order, so a poll that found nothing
 * stays true until this very actor changes something. Idle ones are put to sleep; their state is in the store.
 */
import { Clock, Effect, Result } from "effect"
import type { RpcGroup } from "effect/rpc"
import { verifyReceipt } from "../crypto/Trust.ts"
import { type ActorRef, Behaviour } from "../kernel/index.ts"
import { CryptoEngine } from "../ports/CryptoEngine.ts"
import { type DeviceRow, FleetStore } from "../ports/FleetStore.ts"
import type { PollRequest, ReceiptAcknowledgement } from "../schemas/DeviceApi.ts"
import type { DsseEnvelope } from "../schemas/Dsse.ts"
import type { DeviceId, OrderId } from "../schemas/Ids.ts"
import { Refused } from "../schemas/ManagementApi.ts"
import { DeviceProtocol, NotAccepted } from "../schemas/protocols/Device.ts"
import type { JobWatchProtocol } from "../schemas/protocols/JobWatch.ts"
import type { RolloutsProtocol } from "../schemas/protocols/Rollouts.ts"
import type { OrderProgress } from "../schemas/WorkOrder.ts"
import { type Heard, isLeftOver, objectionTo } from "./DeviceJudgement.ts"
import { makeOrders } from "./DeviceOrders.ts"
import { makePolls } from "./DevicePolls.ts"
import { type DeviceRecord, knownObjection, makeRecord } from "./DeviceRecord.ts"
import type { PollOptions } from "./PollNews.ts"
import { JobWatchKey, OnionKeeperKey, RolloutsKey } from "./ServerKeys.ts"
import { orUnavailable } from "./StoreTrouble.ts"

/** Wakes those who watch the jobs. A lost word costs them their waiting time, nothing else. */
type Announce = (orders: ReadonlyArray<OrderId>) => Effect.Effect<void>

/** Judges who polls, and takes in what the poll tells. */
const makeHearing = (device: DeviceId, record: DeviceRecord, announce: Announce) =>
  Effect.map(FleetStore, (store) => {
    /** What the last poll said of the orders in work, by order. */
    let reported = new Map<OrderId, string>()

    const judge = Effect.fnUntraced(function* (row: DeviceRow, heard: Heard) {
      if (isLeftOver(heard, row)) return row.objection ?? "ledger_rolled_back"
      const nowMs = yield* Clock.currentTimeMillis
      const standing = yield* record.standing
      const isAccepted = heard.request.incarnation === row.admitted?.incarnation
      if (isAccepted) record.heardLife(heard)
      const objection = objectionTo(heard, row, standing, record.memory())
      if (!isAccepted) record.heardRival(heard.createdMs)
      if (objection !== null && objection !== row.objection) {
        yield* record.object(row, objection, nowMs)
        yield* Effect.logWarning(`the device is held back: ${objection}. An operator must accept it again`)
      }
      if (isAccepted) yield* record.heard({ ...row, objection }, heard, nowMs)
      return objection
    })

    const takeProgress = Effect.fnUntraced(function* (events: ReadonlyArray<OrderProgress>) {
      const texts = new Map(events.map((event) => [event.order, `${event.version} ${event.done_bytes}`]))
      const news = events.filter((event) => reported.get(event.order) !== texts.get(event.order))
      reported = texts
      if (news.length === 0) return
      const changed = yield* store.progress(device, news)
      if (changed.length === 0) return
      record.forgetStanding()
      yield* announce(changed)
    })

    return Effect.fnUntraced(function* (heard: Heard) {
      const row = yield* record.row
      if (row === null || row.status !== "accepted") return { row, objection: "not_enrolled" as const }
      const objection = yield* judge(row, heard)
      if (heard.request.incarnation === row.admitted?.incarnation) yield* takeProgress(heard.request.active)
      return { row, objection }
    })
  })

/** Receipts of the device: verified by its own key, stored, acknowledged by number and digest. */
const makeReceipts = (device: DeviceId, record: DeviceRecord, announce: Announce) =>
  Effect.gen(function* () {
    const store = yield* FleetStore
    const engine = yield* CryptoEngine
    return Effect.fnUntraced(function* (row: DeviceRow, envelopes: ReadonlyArray<DsseEnvelope>) {
      const acknowledged: Array<ReceiptAcknowledgement["acknowledged"][number]> = []
      const orders: Array<OrderId> = []
      let flaw = ""
      for (const envelope of envelopes) {
        const verified = verifyReceipt(engine, device, row.request.signing_key, envelope)
        if (Result.isFailure(verified)) {
          flaw = verified.failure.message
          continue
        }
        const { digest, document: receipt } = verified.success
        const nowMs = yield* Clock.currentTimeMillis
        const outcome = yield* store.addReceipt(receipt, envelope, digest, nowMs)
        if (outcome === "conflict") {
          flaw = `another receipt of number ${receipt.number} is there`
          yield* record.object(row, row.objection ?? "ledger_rolled_back", nowMs)
          yield* Effect.logWarning(`the device is held back: ${flaw}`)
          continue
        }
        acknowledged.push({ number: receipt.number, digest })
        if (receipt.order !== null) orders.push(receipt.order)
      }
      record.forgetStanding()
      yield* announce(orders)
      return acknowledged.length === 0 ? yield* new Refused({ message: flaw }) : { acknowledged }
    })
  })

const announceTo =
  (watch: ActorRef<RpcGroup.Rpcs<typeof JobWatchProtocol>>): Announce =>
  (orders) =>
    orders.length === 0
      ? Effect.void
      : Effect.catch(watch.tell("Changed", { orders }), (error) => Effect.logDebug(error.message))

/** Tells rollouts too, which wait for orders to come and to end. */
const touchVia =
  (announce: Announce, rollouts: ActorRef<RpcGroup.Rpcs<typeof RolloutsProtocol>>): Announce =>
  (orders) =>
    orders.length === 0
      ? Effect.void
      : Effect.andThen(
          announce(orders),
          Effect.catch(rollouts.tell("Touched", { orders }), (error) => Effect.logDebug(error.message))
        )

/** What one life of a device's actor is made of. */
const makeParts = (
  id: DeviceId,
  options: PollOptions,
  announce: Announce,
  touch: Announce,
  accessChanged: Effect.Effect<void>
) =>
  Effect.gen(function* () {
    const record = yield* makeRecord(id, accessChanged)
    const polls = yield* makePolls(id, options)
    yield* Effect.addFinalizer(() => Effect.sync(polls.close))
    const row = record.row
    const judge = (known: DeviceRow | null) => (request: PollRequest) => knownObjection(known, request)
    return {
      record,
      polls,
      hear: yield* makeHearing(id, record, announce),
      takeReceipts: yield* makeReceipts(id, record, touch),
      orders: yield* makeOrders(id),
      /** The device, or a refusal unless it is accepted. */
      accepted: Effect.flatMap(row, (known) =>
        known?.status === "accepted"
          ? Effect.succeed(known)
          : Effect.fail(new NotAccepted({ device: id, standing: known?.status ?? "unknown" }))
      ),
      collect: (ticket: number) => Effect.flatMap(row, (known) => polls.collect(ticket, known, judge(known))),
      /** Something changed that a parked poll should hear of. */
      wake: Effect.flatMap(row, (known) => polls.wake(known, judge(known))).pipe(
        Effect.catch((error) => Effect.logWarning(`parked polls are not woken: ${error.reason}`))
      )
    }
  })

export const device = (id: DeviceId, options: PollOptions) =>
  Behaviour.make(DeviceProtocol, (context) =>
    Effect.gen(function* () {
      const store = yield* FleetStore
      const announce = announceTo(context.ref(JobWatchKey))
      const touch = touchVia(announce, context.ref(RolloutsKey))
      const { accepted, collect, hear, orders, polls, record, takeReceipts, wake } = yield* makeParts(
        id,
        options,
        announce,
        touch,
        Effect.ignore(context.ref(OnionKeeperKey).tell("ClientsChanged"))
      )
      /** Runs a change of orders. Even a change that seemed to fail may have been made. */
      const changing = <A, E>(change: Effect.Effect<A, E>, order: OrderId | null) =>
        change.pipe(
          Effect.ensuring(polls.stir),
          Effect.tap(() => wake),
          Effect.tap(() => (order === null ? Effect.void : announce([order])))
        )

      return context.handlers({
        Standing: () => orUnavailable(Effect.map(record.row, (row) => row?.status ?? ("unknown" as const))),
        Poll: ({ payload }) =>
          Effect.flatMap(hear(payload), ({ objection, row }) =>
            polls.poll(payload.request, row, objection)
          ).pipe(orUnavailable),
        Collect: ({ payload }) => orUnavailable(collect(payload.ticket)),
        Withdraw: ({ payload }) => Effect.sync(() => polls.withdraw(payload.ticket)),
        Progress: ({ payload }) =>
          Effect.gen(function* () {
            yield* accepted
            const ids = yield* store.progress(id, payload.events)
            if (ids.length > 0) record.forgetStanding()
            yield* announce(ids)
          }).pipe(orUnavailable),
        Receipts: ({ payload }) =>
          orUnavailable(
            changing(
              Effect.flatMap(accepted, (row) => takeReceipts(row, payload.receipts)),
              null
            )
          ),
        Submit: ({ payload }) =>
          orUnavailable(changing(orders.submit(payload.envelope, payload.actor), null)).pipe(
            Effect.tap((order) => touch([order]))
          ),
        Cancel: ({ payload: { actor, envelope, order } }) =>
          orUnavailable(changing(orders.cancel(order, envelope, actor), order)),
        Stop: ({ payload: { actor, order } }) => orUnavailable(changing(orders.stop(order, actor), order)),
        Changed: () => Effect.andThen(Effect.sync(record.forgetRow), Effect.andThen(polls.stir, wake))
      })
    })
  )

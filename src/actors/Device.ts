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
import type { Objection, PollRequest, ReceiptAcknowledgement } from "../schemas/DeviceApi.ts"
import type { DsseEnvelope } from "../schemas/Dsse.ts"
import type { DeviceId, OrderId } from "../schemas/Ids.ts"
import { Refused } from "../schemas/ManagementApi.ts"
import { DeviceProtocol, NotAccepted } from "../schemas/protocols/Device.ts"
import type { JobWatchProtocol } from "../schemas/protocols/JobWatch.ts"
import type { OrderProgress } from "../schemas/WorkOrder.ts"
import { type Heard, objectionTo } from "./DeviceJudgement.ts"
import { makeOrders } from "./DeviceOrders.ts"
import { makePolls, type PollOptions } from "./DevicePolls.ts"
import { type DeviceRecord, knownObjection, makeRecord } from "./DeviceRecord.ts"
import { JobWatchKey } from "./ServerKeys.ts"
import { orUnavailable } from "./StoreTrouble.ts"

/** Wakes those who watch the jobs. A lost word costs them their waiting time, nothing else. */
type Announce = (orders: ReadonlyArray<OrderId>) => Effect.Effect<void>

/** Judges who polls, and takes in what the poll tells. */
const makeHearing = (device: DeviceId, record: DeviceRecord, announce: Announce) =>
  Effect.map(FleetStore, (store) => {
    /** What the last poll said of the orders in work, by order. */
    let reported = new Map<OrderId, string>()

    const judge = Effect.fnUntraced(function* (row: DeviceRow, heard: Heard) {
      const nowMs = yield* Clock.currentTimeMillis
      const standing = yield* record.standing
      const objection = objectionTo(heard, row, standing, record.memory())
      const isAccepted = heard.request.incarnation === row.admitted?.incarnation
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

export const device = (id: DeviceId, options: PollOptions) =>
  Behaviour.make(DeviceProtocol, (context) =>
    Effect.gen(function* () {
      const store = yield* FleetStore
      const record = yield* makeRecord(id)
      const polls = yield* makePolls(id, options)
      const announce = announceTo(context.ref(JobWatchKey))
      const hear = yield* makeHearing(id, record, announce)
      const takeReceipts = yield* makeReceipts(id, record, announce)
      const orders = yield* makeOrders(id)
      yield* Effect.addFinalizer(() => Effect.sync(polls.close))

      const objection = (row: DeviceRow | null) => (request: PollRequest): Objection | null => knownObjection(row, request)
      /** Something changed that a parked poll should hear of. */
      const wake = Effect.gen(function* () {
        polls.stir()
        const row = yield* record.row
        yield* polls.wake(row, objection(row))
      }).pipe(Effect.catch((error) => Effect.logWarning(`parked polls are not woken: ${error.reason}`)))
      const accepted = Effect.flatMap(record.row, (row) =>
        row?.status === "accepted"
          ? Effect.succeed(row)
          : Effect.fail(new NotAccepted({ device: id, standing: row?.status ?? "unknown" }))
      )
      const changed = (order: OrderId) => Effect.andThen(wake, announce([order]))

      return context.handlers({
        Standing: () => Effect.map(record.row, (row) => row?.status ?? ("unknown" as const)).pipe(orUnavailable),
        Poll: ({ payload }) =>
          Effect.flatMap(hear(payload), (heard) => polls.poll(payload.request, heard.row, heard.objection)).pipe(
            orUnavailable
          ),
        Collect: ({ payload }) =>
          Effect.gen(function* () {
            const row = yield* record.row
            return (yield* polls.collect(payload.ticket, row, objection(row))) ?? polls.nothing
          }).pipe(orUnavailable),
        Withdraw: ({ payload }) => Effect.sync(() => polls.withdraw(payload.ticket)),
        Progress: ({ payload }) =>
          Effect.gen(function* () {
            yield* accepted
            const ids = yield* store.progress(id, payload.events)
            if (ids.length > 0) record.forgetStanding()
            yield* announce(ids)
          }).pipe(orUnavailable),
        Receipts: ({ payload }) =>
          Effect.flatMap(accepted, (row) => takeReceipts(row, payload.receipts)).pipe(orUnavailable),
        Submit: ({ payload }) =>
          orders.submit(payload.envelope, payload.actor).pipe(Effect.tap(() => wake), orUnavailable),
        Cancel: ({ payload }) =>
          orders.cancel(payload.order, payload.envelope, payload.actor).pipe(
            Effect.tap(() => changed(payload.order)),
            orUnavailable
          ),
        Stop: ({ payload }) =>
          orders.stop(payload.order, payload.actor).pipe(Effect.tap(() => changed(payload.order)), orUnavailable),
        Changed: () => Effect.andThen(Effect.sync(record.forgetRow), wake)
      })
    }).pipe(Effect.annotateLogs({ device: id }))
  )

/**
 * The polls of one device: what there is to say, and who waits for it. A poll that finds nothing new is parked as an
 * entry in a short list; whoever asked waits outside, for the ticket.
 */
import { Clock, Deferred, Effect } from "effect"
import { type DeviceRow, FleetStore, type StoreError } from "../ports/FleetStore.ts"
import type { Objection, PollAnswer, PollRequest } from "../schemas/DeviceApi.ts"
import type { DeviceId, OrderId } from "../schemas/Ids.ts"
import { Limits } from "../schemas/Limits.ts"
import type { Ticket } from "../schemas/protocols/Ticket.ts"
import { digestOfEnvelope } from "../crypto/Documents.ts"
import { CryptoEngine } from "../ports/CryptoEngine.ts"
import { FleetTrust } from "./FleetTrust.ts"

export interface PollOptions {
  /** The sleep told to a device that does not hold its polls open. */
  readonly pollSleepMs: number
}

/** The same answer is not said again to a device that holds its poll open, until this has passed. */
const repeatAfterMs = 5_000

interface Waiter {
  readonly ticket: Ticket<PollAnswer>
  readonly request: PollRequest
  readonly objection: Objection | null
}

/** What an answer says that the device does not know yet. */
interface News {
  readonly answer: PollAnswer
  /** Names the content; empty when there is nothing to say. */
  readonly content: string
}

const blockedAlike: Record<Objection, ReadonlyArray<string>> = {
  cloned: ["cloned"],
  ledger_rolled_back: ["ledger_rolled_back", "not_enrolled"],
  not_enrolled: ["not_enrolled", "rejected", "revoked"]
}

const contentOf = (answer: PollAnswer, request: PollRequest, names: ReadonlyArray<string>): string => {
  const { admission, objection, stops } = answer
  const isNews = objection !== null && !blockedAlike[objection].includes(request.blocked ?? "")
  return [...names, ...stops, ...(admission === null ? [] : ["admission"]), ...(isNews ? [objection] : [])].join(" ")
}

export const makePolls = (device: DeviceId, options: PollOptions) =>
  Effect.gen(function* () {
    const store = yield* FleetStore
    const engine = yield* CryptoEngine
    const trust = yield* FleetTrust
    let waiters: Array<Waiter> = []
    let nextTicket = 0
    /** The request after which the store had nothing; a poll that asks for the same needs no look. */
    let quiet: string | null = null
    let said = { content: "", atMs: Number.NEGATIVE_INFINITY }

    const emptyAnswer = (request: PollRequest, objection: Objection | null): PollAnswer => ({
      orders: [],
      cancels: [],
      stops: [],
      admission: null,
      objection,
      sleep_ms: request.wait_ms > 0 ? 0 : options.pollSleepMs
    })

    const ordersFor = Effect.fnUntraced(function* (request: PollRequest, nowMs: number) {
      const question = JSON.stringify([request.free_lanes, request.high_water, request.blocked])
      if (quiet === question) return { orders: [], cancels: [], stops: [] as ReadonlyArray<OrderId> }
      const { cancels, stops } = yield* store.interventions(device)
      const orders =
        request.blocked === null && trust.current() !== null
          ? yield* store.offer(device, request.free_lanes, request.high_water, Limits.pollOrders, nowMs)
          : []
      if (orders.length === 0 && cancels.length === 0 && stops.length === 0) quiet = question
      return { orders, cancels, stops }
    })

    /** Everything there is to say to a poll now. */
    const evaluate = Effect.fnUntraced(function* (
      request: PollRequest,
      row: DeviceRow | null,
      objection: Objection | null
    ): Effect.fn.Return<News, StoreError> {
      const newer = row?.admitted != null && row.admitted.sequence > request.admission_sequence
      const admission = newer ? row.admission : null
      const base = { ...emptyAnswer(request, objection), admission }
      if (objection !== null) return { answer: base, content: contentOf(base, request, []) }
      const found = yield* ordersFor(request, yield* Clock.currentTimeMillis)
      const seen = new Set<string>(request.cancels_seen)
      const unseen = found.cancels.filter(({ order }) => !seen.has(order))
      const answer: PollAnswer = {
        ...base,
        orders: found.orders.map((job) => job.envelope),
        cancels: unseen.map(({ envelope }) => envelope),
        stops: found.stops,
        // More may wait behind a full answer.
        sleep_ms: found.orders.length === Limits.pollOrders ? 0 : base.sleep_ms
      }
      const names = [
        ...found.orders.map((job) => job.digest),
        ...unseen.map(({ envelope }) => digestOfEnvelope(engine, envelope))
      ]
      return { answer, content: contentOf(answer, request, names) }
    })

    const settle = (waiter: Waiter, answer: PollAnswer): void => {
      waiters = waiters.filter((other) => other !== waiter)
      Deferred.doneUnsafe(waiter.ticket.answer, Effect.succeed(answer))
    }

    const ticket = (waitMs: number, answer?: PollAnswer): Ticket<PollAnswer> => {
      const made = { id: nextTicket++, waitMs, answer: Deferred.makeUnsafe<PollAnswer>() }
      if (answer !== undefined) Deferred.doneUnsafe(made.answer, Effect.succeed(answer))
      return made
    }

    /** Parks a poll; the one before it from the same device has been given up, so it is let go. */
    const park = (request: PollRequest, objection: Objection | null, waitMs: number): Ticket<PollAnswer> => {
      for (const waiter of waiters.filter((other) => other.request.incarnation === request.incarnation)) {
        settle(waiter, emptyAnswer(waiter.request, waiter.objection))
      }
      const oldest = waiters[0]
      if (oldest !== undefined && waiters.length >= Limits.devicePolls) {
        settle(oldest, emptyAnswer(oldest.request, oldest.objection))
      }
      const parked = ticket(waitMs)
      waiters.push({ ticket: parked, request, objection })
      return parked
    }

    return {
      /** For an asker whose ticket is not known any more: poll again. */
      nothing: { orders: [], cancels: [], stops: [], admission: null, objection: null, sleep_ms: 0 } satisfies PollAnswer,
      /** Something may be there to say now: the next look goes to the store. */
      stir: () => {
        quiet = null
      },
      /** The answer, or a ticket for one. */
      poll: Effect.fnUntraced(function* (request: PollRequest, row: DeviceRow | null, objection: Objection | null) {
        const { answer, content } = yield* evaluate(request, row, objection)
        const nowMs = yield* Clock.currentTimeMillis
        const heldMs = content !== "" && content === said.content ? said.atMs + repeatAfterMs - nowMs : 0
        const waitMs = Math.min(request.wait_ms, content === "" ? Number.POSITIVE_INFINITY : Math.max(0, heldMs))
        if (waitMs > 0) return park(request, objection, waitMs)
        said = { content, atMs: nowMs }
        return ticket(0, answer)
      }),
      /** Answers every parked poll that there is something for. */
      wake: Effect.fnUntraced(function* (row: DeviceRow | null, objection: (request: PollRequest) => Objection | null) {
        for (const waiter of waiters) {
          const { answer, content } = yield* evaluate(waiter.request, row, objection(waiter.request))
          if (content === "" || content === said.content) continue
          said = { content, atMs: yield* Clock.currentTimeMillis }
          settle(waiter, answer)
        }
      }),
      /** Ends a parked poll with what there is now. */
      collect: Effect.fnUntraced(function* (
        id: number,
        row: DeviceRow | null,
        objection: (request: PollRequest) => Objection | null
      ) {
        const waiter = waiters.find((other) => other.ticket.id === id)
        if (waiter === undefined) return null
        const { answer, content } = yield* evaluate(waiter.request, row, objection(waiter.request))
        if (content !== "") said = { content, atMs: yield* Clock.currentTimeMillis }
        settle(waiter, answer)
        return answer
      }),
      withdraw: (id: number) => {
        waiters = waiters.filter((other) => other.ticket.id !== id)
      },
      /** The end of this life: whoever waits polls again. */
      close: () => {
        for (const waiter of waiters) settle(waiter, emptyAnswer(waiter.request, waiter.objection))
      }
    }
  })

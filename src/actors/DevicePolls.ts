/**
 * The polls of one device. One that finds nothing new is parked as an entry in a short list; whoever asked waits outside,
 * for the ticket, so that the actor is free.
 */
import { Clock, Deferred, Effect } from "effect"
import type { DeviceRow } from "../ports/FleetStore.ts"
import { FleetTrust } from "../ports/FleetTrust.ts"
import type { Objection, PollAnswer, PollRequest } from "../schemas/DeviceApi.ts"
import type { DeviceId } from "../schemas/Ids.ts"
import { Limits } from "../schemas/Limits.ts"
import type { Ticket } from "../schemas/protocols/Ticket.ts"
import { emptyAnswer, makeNews, type PollOptions } from "./PollNews.ts"

/** The same answer is not said again to a device that holds its poll open, until this has passed. */
const repeatAfterMs = 5_000

interface Waiter {
  readonly ticket: Ticket<PollAnswer>
  readonly request: PollRequest
  readonly objection: Objection | null
}

/** For an asker whose ticket is not known any more: poll again. */
export const pollAgain: PollAnswer = {
  orders: [],
  cancels: [],
  stops: [],
  admission: null,
  objection: null,
  sleep_ms: 0
}

/** The parked polls, oldest first. */
class Waiters {
  private list: Array<Waiter> = []
  private nextId = 0
  private readonly options: PollOptions

  constructor(options: PollOptions) {
    this.options = options
  }

  get all(): ReadonlyArray<Waiter> {
    return this.list
  }

  find(id: number): Waiter | undefined {
    return this.list.find((waiter) => waiter.ticket.id === id)
  }

  ticket(waitMs: number): Ticket<PollAnswer> {
    return { id: this.nextId++, waitMs, answer: Deferred.makeUnsafe<PollAnswer>() }
  }

  settle(waiter: Waiter, answer: PollAnswer): void {
    this.list = this.list.filter((other) => other !== waiter)
    Deferred.doneUnsafe(waiter.ticket.answer, Effect.succeed(answer))
  }

  release(waiter: Waiter): void {
    this.settle(waiter, emptyAnswer(this.options, waiter.request, waiter.objection))
  }

  /** Parks a poll. The one before it from the same ledger has been given up, so it is let go. */
  park(request: PollRequest, objection: Objection | null, waitMs: number): Ticket<PollAnswer> {
    const before = this.list.filter((waiter) => waiter.request.incarnation === request.incarnation)
    for (const waiter of before) this.release(waiter)
    const oldest = this.list[0]
    if (oldest !== undefined && this.list.length >= Limits.devicePolls) this.release(oldest)
    const ticket = this.ticket(waitMs)
    this.list.push({ ticket, request, objection })
    return ticket
  }

  withdraw(id: number): void {
    this.list = this.list.filter((waiter) => waiter.ticket.id !== id)
  }
}

/** What is held against whoever makes a request. */
type Judge = (request: PollRequest) => Objection | null

export const makePolls = (device: DeviceId, options: PollOptions) =>
  Effect.gen(function* () {
    const news = yield* makeNews(device, options)
    const trust = yield* FleetTrust
    const waiters = new Waiters(options)
    /** The newest root that the device was told of: the answer's statement names it. */
    let rootTold = 0
    const newestRoot = () => trust.current()?.root.version ?? 0
    let said = { content: "", atMs: Number.NEGATIVE_INFINITY }

    return {
      /** Something may have changed: the next look goes to the store. */
      stir: Effect.sync(news.stir),
      /** The answer, or a ticket for one. */
      poll: Effect.fnUntraced(function* (
        request: PollRequest,
        row: DeviceRow | null,
        objection: Objection | null
      ) {
        const { answer, content } = yield* news.evaluate(request, row, objection)
        const nowMs = yield* Clock.currentTimeMillis
        const isRepeat = content !== "" && content === said.content
        const heldMs = isRepeat ? Math.max(0, said.atMs + repeatAfterMs - nowMs) : 0
        const waitMs = Math.min(request.wait_ms, content === "" ? Number.POSITIVE_INFINITY : heldMs)
        const isBehind = request.root_version < newestRoot() && rootTold < newestRoot()
        rootTold = newestRoot()
        if (waitMs > 0 && !isBehind) return waiters.park(request, objection, waitMs)
        said = { content, atMs: nowMs }
        const ticket = waiters.ticket(0)
        Deferred.doneUnsafe(ticket.answer, Effect.succeed(answer))
        return ticket
      }),
      /** Answers every parked poll that there is something for. */
      wake: Effect.fnUntraced(function* (row: DeviceRow | null, judge: Judge) {
        for (const waiter of waiters.all) {
          const { answer, content } = yield* news.evaluate(waiter.request, row, judge(waiter.request))
          if (content === "" || content === said.content) continue
          said = { content, atMs: yield* Clock.currentTimeMillis }
          waiters.settle(waiter, answer)
        }
      }),
      /** Ends a parked poll with what there is now. */
      collect: Effect.fnUntraced(function* (id: number, row: DeviceRow | null, judge: Judge) {
        const waiter = waiters.find(id)
        if (waiter === undefined) return pollAgain
        rootTold = newestRoot()
        const { answer, content } = yield* news.evaluate(waiter.request, row, judge(waiter.request))
        if (content !== "") said = { content, atMs: yield* Clock.currentTimeMillis }
        waiters.settle(waiter, answer)
        return answer
      }),
      withdraw: (id: number) => waiters.withdraw(id),
      /** The end of this life: whoever waits polls again. */
      close: () => {
        for (const waiter of waiters.all) waiters.release(waiter)
      }
    }
  })

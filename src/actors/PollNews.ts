/** What a poll's answer says that the device does not know yet. */
import { Clock, Effect } from "effect"
import { digestOfEnvelope } from "../crypto/Documents.ts"
import { CryptoEngine } from "../ports/CryptoEngine.ts"
import { type DeviceRow, FleetStore, type StoreError } from "../ports/FleetStore.ts"
import { FleetTrust } from "../ports/FleetTrust.ts"
import type { Objection, PollAnswer, PollRequest } from "../schemas/DeviceApi.ts"
import type { DeviceId, OrderId } from "../schemas/Ids.ts"
import { Limits } from "../schemas/Limits.ts"
import { makeSharing } from "./SharedKeys.ts"

export interface PollOptions {
  /** The sleep told to a device that does not hold its polls open. */
  readonly pollSleepMs: number
}

export interface News {
  readonly answer: PollAnswer
  /** Names the content; empty when there is nothing to say. */
  readonly content: string
}

/** A device that says this of itself need not be told. */
const blockedAlike: Record<Objection, ReadonlyArray<string>> = {
  cloned: ["cloned"],
  ledger_rolled_back: ["ledger_rolled_back", "not_enrolled"],
  not_enrolled: ["not_enrolled", "rejected", "revoked"]
}

const contentOf = (answer: PollAnswer, request: PollRequest, names: ReadonlyArray<string>): string => {
  const { admission, objection, stops } = answer
  const isNews = objection !== null && !blockedAlike[objection].includes(request.blocked ?? "")
  return [
    ...names,
    ...stops,
    ...(admission === null ? [] : ["admission"]),
    ...(answer.onion_shared === undefined ? [] : [answer.onion_shared.key]),
    ...(isNews ? [objection] : [])
  ].join(" ")
}

/** An answer that says nothing. */
export const emptyAnswer = (
  options: PollOptions,
  request: PollRequest,
  objection: Objection | null
): PollAnswer => ({
  orders: [],
  cancels: [],
  stops: [],
  admission: null,
  objection,
  sleep_ms: request.wait_ms > 0 ? 0 : options.pollSleepMs
})

/** Looks for news of one device. */
export const makeNews = (device: DeviceId, options: PollOptions) =>
  Effect.gen(function* () {
    const store = yield* FleetStore
    const engine = yield* CryptoEngine
    const trust = yield* FleetTrust
    const share = yield* makeSharing
    /** The question to which the store had nothing; asked again before something changed, it needs no look. */
    let quiet: string | null = null

    const look = Effect.fnUntraced(function* (request: PollRequest, nowMs: number) {
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

    return {
      /** Something may have changed: the next look goes to the store. */
      stir: () => {
        quiet = null
      },
      /** Everything there is to say to a poll now. */
      evaluate: Effect.fnUntraced(function* (
        request: PollRequest,
        row: DeviceRow | null,
        objection: Objection | null
      ): Effect.fn.Return<News, StoreError> {
        const isNewer = row?.admitted != null && row.admitted.sequence > request.admission_sequence
        const admission = isNewer ? row.admission : null
        // Also where something is held against the device: it must not lose the way to its server over that.
        const shared = row?.onionShared?.key === request.onion_held ? {} : yield* share(row)
        const base = { ...emptyAnswer(options, request, objection), admission, ...shared }
        if (objection !== null) return { answer: base, content: contentOf(base, request, []) }
        const found = yield* look(request, yield* Clock.currentTimeMillis)
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
    }
  })

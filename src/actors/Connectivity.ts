/**
 * Watches the way to the server. It looks when a poll has failed and then from time to time, always as a task, and nothing
 * ever waits for it. When what was broken below the server is good again it says so to the main loop, whose sleep may
 * have grown long by then.
 */
import { Effect, Exit } from "effect"
import { type ActorContext, Behaviour } from "../kernel/index.ts"
import { Connectivity } from "../ports/Connectivity.ts"
import { DeviceClock } from "../ports/DeviceClock.ts"
import { type LinkFinding, layerOfRouteFailure } from "../schemas/Connectivity.ts"
import type { LinkHealth } from "../schemas/Health.ts"
import { ConnectivityProtocol } from "../schemas/protocols/Connectivity.ts"
import type { RouteFailure } from "../schemas/RouteFailure.ts"
import { makeAlarm } from "./Alarm.ts"
import { HistorianKey, MainLoopKey, TrustKeeperKey, TunnelKeeperKey } from "./ClientKeys.ts"
import { delayAfter, jittered } from "./Delays.ts"
import { plainText } from "./PlainText.ts"

export interface ConnectivityOptions {
  /** Origins to look for before there is a root that names others. */
  readonly servers: ReadonlyArray<string>
}

/** Between two looks while something is broken. */
const brokenPauses = { firstMs: 10_000, factor: 1.5, maximumMs: 60_000 }
/** Between two looks at the reference hosts while the server is reached. */
const goodMs = 300_000
/** Time for the first turn to tell. */
const firstMs = 5_000
const askTimeoutMs = 2_000

interface State {
  link: LinkHealth
  /** Whether the last turn reached the server; null before it. */
  reached: boolean | null
  /** What the last request saw where it did not, and what Tor or a proxy told of it. */
  told: string
  code: RouteFailure | null
  /** Turns that failed, and how many of them before what was broken below the server was mended. */
  failures: number
  mendedAfter: number
  /** What the last look found, whatever a turn said since. */
  found: LinkFinding["layer"] | null
  looks: number
  looking: boolean
}

const freshState = (nowMs: number): State => ({
  link: { layer: "ok", detail: "", since_at_ms: nowMs, last_outage: null },
  reached: null,
  told: "",
  code: null,
  failures: 0,
  mendedAfter: -1,
  found: null,
  looks: 0,
  looking: false
})

/** What only a request itself can tell of: a look neither finds it broken nor mended. */
const toldByRequests: ReadonlySet<LinkFinding["layer"]> = new Set([
  "proxy_refused",
  "onion_not_found",
  "onion_not_authorised",
  "onion_intro_failed",
  "server_unreachable"
])

/**
 * What Tor answers from memory: for a quarter of an hour it does not ask again who has not published, and it keeps for
 * hours what was published before. So it is to forget that before the next attempt; it does so every ten seconds at most.
 */
const fromMemory: ReadonlySet<RouteFailure> = new Set([
  "onion_not_found",
  "onion_not_authorised",
  "onion_intro_failed",
  "onion_unexplained"
])

/** Whether a finding is of something broken below the server that a look can see. */
const isBelow = (layer: LinkFinding["layer"] | null): boolean =>
  layer !== null && layer !== "ok" && !toldByRequests.has(layer)

/** What to make of a look, beside what the main loop told. */
const judge = (state: State, found: LinkFinding): LinkFinding => {
  // Reference hosts tell of the network beyond; the server itself is proof that all else is good.
  if (state.reached === true) return found.layer === "no_reference_host" ? found : { layer: "ok", detail: "" }
  const nothingFound = found.layer === "ok" || found.layer === "server_unreachable"
  if (state.reached !== false || !nothingFound) return found
  // A look that did not get through to the server knows less than a request that was told why.
  if (found.layer === "server_unreachable" && state.code === null) return found
  // What was broken below is mended: until a turn has failed since then, nothing is known against the server.
  const isMended = isBelow(state.link.layer) && (isBelow(state.found) || state.failures === state.mendedAfter)
  const layer = state.code === null ? "server_unreachable" : layerOfRouteFailure[state.code]
  return isMended ? state.link : { layer, detail: plainText(state.told, 200) }
}

const describe = (ms: number): string =>
  ms < 120_000 ? `${Math.round(ms / 1000)} s` : `${Math.round(ms / 60_000)} min`

/** The state after a finding: an outage that ends, or turns into another, is remembered as the last one. */
const changedLink = (before: LinkHealth, now: LinkFinding, nowMs: number): LinkHealth => {
  const { detail, layer, since_at_ms } = before
  if (now.layer === layer) return { ...before, detail: now.detail }
  const ended = { layer, detail, from_at_ms: since_at_ms, until_at_ms: Math.max(nowMs, since_at_ms) }
  return { ...now, since_at_ms: nowMs, last_outage: layer === "ok" ? before.last_outage : ended }
}

/** Says it in the log, and gives what the history is told. */
const announce = Effect.fnUntraced(function* (before: LinkHealth, now: LinkHealth) {
  if (now.layer === "ok") {
    yield* Effect.logInfo(`the way to the server is good again, after ${before.layer}`)
    const lasted = `after ${describe(now.since_at_ms - before.since_at_ms)}`
    return { kind: "reached" as const, subject: before.layer, detail: lasted }
  }
  yield* Effect.logWarning(`the way to the server is broken: ${now.layer}`).pipe(
    Effect.annotateLogs({ detail: now.detail })
  )
  return { kind: "outage" as const, subject: now.layer, detail: plainText(now.detail, 200) }
})

/** The addresses of the server: those the root names, and those known before there was one. */
const look = Effect.fnUntraced(function* (
  context: Pick<ActorContext<never>, "ref">,
  servers: ReadonlyArray<string>
) {
  const port = yield* Connectivity
  const view = yield* Effect.option(
    context.ref(TrustKeeperKey).ask("View", undefined, { timeoutMs: askTimeoutMs })
  )
  const held = view._tag === "Some" ? view.value.held : null
  const known = held?.root.servers.find(({ id }) => id === held.server)?.addresses ?? []
  return yield* port.look([...new Set([...known, ...servers])])
})

/** The behaviour. */
export const connectivity = (options: ConnectivityOptions) =>
  Behaviour.make(ConnectivityProtocol, (context) =>
    Effect.gen(function* () {
      const clock = yield* DeviceClock
      const port = yield* Connectivity
      const history = context.ref(HistorianKey)
      const state = freshState(yield* clock.nowMs)
      const alarm = yield* makeAlarm(context.self.tell("Due"))

      const begin = Effect.suspend(() => {
        if (state.looking) return Effect.void
        state.looking = true
        return context.startTask(look(context, options.servers), (exit) => [
          "Looked",
          Exit.isSuccess(exit) ? exit.value : { layer: "server_unreachable", detail: "the look broke off" }
        ])
      })

      /** Takes a finding in; a change of layer is told once. */
      const settle = Effect.fnUntraced(function* (now: LinkFinding) {
        const before = state.link
        state.link = changedLink(before, now, yield* clock.nowMs)
        if (now.layer !== before.layer)
          yield* Effect.ignore(history.tell("Happened", yield* announce(before, state.link)))
      })

      const rest = Effect.gen(function* () {
        const isGood = state.link.layer === "ok" && state.reached === true
        if (isGood && !port.hasReferences) return yield* alarm.silence
        yield* alarm.ringIn(isGood ? yield* jittered(goodMs) : yield* delayAfter(brokenPauses, ++state.looks))
      })

      yield* alarm.ringIn(firstMs)
      return context.handlers({
        Status: () => Effect.sync(() => state.link),
        Told: Effect.fnUntraced(function* ({ payload }) {
          const changed = state.reached !== payload.reached
          state.reached = payload.reached
          state.told = payload.detail
          state.code = payload.reached ? null : payload.code
          if (!payload.reached) {
            state.failures++
            if (payload.code !== null && fromMemory.has(payload.code))
              yield* Effect.ignore(context.ref(TunnelKeeperKey).tell("Renew"))
            return changed ? yield* begin : undefined
          }
          if (changed) {
            state.looks = 0
            if (state.link.layer !== "no_reference_host") yield* settle({ layer: "ok", detail: "" })
            yield* rest
          }
        }),
        Looked: Effect.fnUntraced(function* ({ payload }) {
          state.looking = false
          const now = judge(state, payload)
          const isMended = isBelow(state.found) && !isBelow(payload.layer)
          state.found = payload.layer
          yield* settle(now)
          if (isMended) state.mendedAfter = state.failures
          if (isMended && state.reached === false)
            yield* Effect.ignore(context.ref(MainLoopKey).tell("Nudge"))
          yield* rest
        }),
        Due: () => begin
      })
    })
  )

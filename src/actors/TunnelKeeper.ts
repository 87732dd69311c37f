/**
 * The tunnel keeper: opens the device's way through Tor when it is first needed, and opens it again whenever it ends: at
 * once, and ever more slowly where that does not help. A tor that does not get on is ended: it waits ever longer between
 * its attempts, and a new one begins with the first. Nothing of the device waits for it but what needs Tor.
 */
import { Deferred, Effect, Exit } from "effect"
import { Behaviour } from "../kernel/index.ts"
import { Tunnel } from "../ports/Tunnel.ts"
import { type TunnelEnd, TunnelKeeperProtocol } from "../schemas/protocols/TunnelKeeper.ts"
import type { TunnelState } from "../schemas/TunnelState.ts"
import { makeAlarm, monotonicMs } from "./Alarm.ts"
import { MainLoopKey } from "./ClientKeys.ts"
import { type Delays, delayAfter } from "./Delays.ts"
import { makeTunnelStall } from "./TunnelStall.ts"

/** Before the next start. The first is soon: most ends are of a kind that a new start mends. */
const pauses: Delays = { firstMs: 150, factor: 6, maximumMs: 60_000 }
/** A life that held so long was a good one: its end is the first of its kind. */
const goodLifeMs = 60_000

export interface TunnelKeeperOptions {
  /** The configured bound on silence: no pause between two starts is longer. */
  readonly longestPauseMs: number
}

/** One life of Tor, from when it is wanted to its end, or until it is given up for the reason told. */
const live = (givenUp: Deferred.Deferred<string>): Effect.Effect<TunnelEnd, never, Tunnel> =>
  Effect.gen(function* () {
    const tunnel = yield* Tunnel
    yield* tunnel.wanted
    const life = Effect.gen(function* () {
      const { ended } = yield* tunnel.open
      const beganMs = yield* monotonicMs
      const reason = yield* Effect.raceFirst(ended, Deferred.await(givenUp))
      return { reason, problem: null, livedMs: Math.round((yield* monotonicMs) - beganMs) }
    })
    return yield* Effect.catch(Effect.scoped(life), (error) =>
      Effect.succeed<TunnelEnd>({ reason: error.message, problem: error.code, livedMs: 0 })
    )
  })

/** Says what changed, in words for the log. */
const announce = (before: TunnelState["phase"], now: TunnelState): Effect.Effect<void> => {
  const why = now.reason === null ? "" : `: ${now.reason}`
  if (now.phase === "ready" && before !== "ready") return Effect.logInfo("Tor is ready")
  if (now.phase === "lost" && before === "ready" && now.progress > 0)
    return Effect.logWarning(`Tor has no circuits any more${why}`)
  return now.phase === "bootstrapping"
    ? Effect.logInfo(`Tor is on its way: ${now.progress} %, ${now.summary}${why}`)
    : Effect.void
}

/** The behaviour. */
export const tunnelKeeper = ({ longestPauseMs }: TunnelKeeperOptions) =>
  Behaviour.make(TunnelKeeperProtocol, (context) =>
    Effect.gen(function* () {
      const tunnel = yield* Tunnel
      const alarm = yield* makeAlarm(context.self.tell("Due"))
      let seen = yield* tunnel.state
      let starts = 0
      let failures = 0
      let told = ""
      let givenUp = yield* Deferred.make<string>()
      const stall = makeTunnelStall(yield* makeAlarm(context.self.tell("Stalled")), (reason) =>
        Effect.asVoid(Deferred.succeed(givenUp, reason))
      )
      const begin = Effect.gen(function* () {
        givenUp = yield* Deferred.make<string>()
        yield* stall.began
        yield* context.startTask(live(givenUp), (exit) => [
          "Ended",
          Exit.isSuccess(exit)
            ? exit.value
            : { reason: "its keeper broke off", problem: "failed", livedMs: 0 }
        ])
      })
      const watch = Effect.suspend(() =>
        context.startTask(tunnel.changed(seen), (exit) => [
          "Changed",
          Exit.isSuccess(exit) ? exit.value : seen
        ])
      )
      const tell = Effect.fnUntraced(function* ({ problem, reason }: TunnelEnd, pauseMs: number) {
        const text = `Tor is not to be had: ${reason}`
        const next = `it is tried again in ${Math.round(pauseMs / 1000)} s`
        if (problem === null) yield* Effect.logWarning(`Tor is gone: ${reason}`)
        else yield* text === told ? Effect.logDebug(`${text}; ${next}`) : Effect.logError(`${text}; ${next}`)
        told = problem === null ? "" : text
      })
      yield* begin
      yield* watch
      return context.handlers({
        Status: () => Effect.map(tunnel.state, (state) => ({ state, starts, failures })),
        Renew: () =>
          Effect.catch(tunnel.renew, (error) =>
            Effect.logWarning(`circuits were not renewed: ${error.message}`)
          ),
        Ended: Effect.fnUntraced(function* ({ payload }) {
          starts++
          failures = payload.livedMs >= goodLifeMs ? 1 : failures + 1
          yield* stall.ended
          const pauseMs = Math.min(yield* delayAfter(pauses, failures), longestPauseMs)
          yield* tell(payload, pauseMs)
          yield* alarm.ringIn(pauseMs)
        }),
        Changed: Effect.fnUntraced(function* ({ payload }) {
          const before = seen
          seen = payload
          yield* announce(before.phase, payload)
          yield* stall.changed(before, payload)
          // Who waits longer and longer between polls need not wait any more.
          if (payload.phase === "ready" && before.phase !== "ready")
            yield* Effect.ignore(context.ref(MainLoopKey).tell("Nudge"))
          yield* watch
        }),
        Stalled: () => stall.rang(seen),
        Due: () => begin
      })
    })
  )

/**
 * The watchdog: hears the loops' heartbeats. A loop that is silent for longer than it announced is told to start afresh,
 * which its supervisor does; while any loop stays silent the service manager hears nothing either, and kills and
 * respawns the whole program in the end.
 */
import { Effect } from "effect"
import { type ActorContext, Behaviour } from "../kernel/index.ts"
import { DeviceClock } from "../ports/DeviceClock.ts"
import { ServiceManager } from "../ports/ServiceManager.ts"
import { type LoopHealth, type LoopName, WatchdogProtocol } from "../schemas/protocols/Watchdog.ts"
import { makeAlarm, monotonicMs } from "./Alarm.ts"
import { HealthLoopKey, HistorianKey, MainLoopKey, OutboxKey, TrustKeeperKey } from "./ClientKeys.ts"

export interface WatchdogOptions {
  /** Loops that must be heard of; a silent optional one (not `vital`) never costs the program its life. */
  readonly loops: ReadonlyArray<{ readonly loop: LoopName; readonly vital: boolean }>
  /** Between two rounds. */
  readonly roundMs: number
  /** Time for the first beat after the start, and for a fresh start to show. */
  readonly graceMs: number
}

interface Watched {
  readonly vital: boolean
  lastBeatAtMs: number
  heardAt: number
  dueAt: number
  restarts: number
}

const keys = {
  "main-loop": MainLoopKey,
  "health-loop": HealthLoopKey,
  outbox: OutboxKey,
  "trust-keeper": TrustKeeperKey
} as const

/** Tells a loop to begin a new life. It ends its own: the supervisor starts the next. */
const restart = (context: Pick<ActorContext<never>, "ref">, loop: LoopName) => {
  switch (loop) {
    case "main-loop":
      return context.ref(keys["main-loop"]).tell("Restart")
    case "health-loop":
      return context.ref(keys["health-loop"]).tell("Restart")
    case "outbox":
      return context.ref(keys.outbox).tell("Restart")
    case "trust-keeper":
      return context.ref(keys["trust-keeper"]).tell("Restart")
  }
}

/** The watchdog's behaviour. */
export const watchdog = (options: WatchdogOptions) =>
  Behaviour.make(WatchdogProtocol, (context) =>
    Effect.gen(function* () {
      const clock = yield* DeviceClock
      const manager = yield* ServiceManager
      const startedAt = yield* monotonicMs
      const startedAtMs = yield* clock.nowMs
      const watched = new Map<LoopName, Watched>(
        options.loops.map(({ loop, vital }) => [
          loop,
          {
            vital,
            lastBeatAtMs: startedAtMs,
            heardAt: startedAt,
            dueAt: startedAt + options.graceMs,
            restarts: 0
          }
        ])
      )
      const alarm = yield* makeAlarm(context.self.tell("Round"))
      yield* alarm.ringIn(options.roundMs)
      return context.handlers({
        Beat: Effect.fnUntraced(function* ({ payload }) {
          const nowAt = yield* monotonicMs
          const before = watched.get(payload.loop)
          watched.set(payload.loop, {
            vital: before?.vital ?? false,
            lastBeatAtMs: yield* clock.nowMs,
            heardAt: nowAt,
            dueAt: nowAt + payload.withinMs,
            restarts: payload.done ? 0 : (before?.restarts ?? 0)
          })
        }),
        Round: Effect.fnUntraced(function* () {
          const nowAt = yield* monotonicMs
          for (const [loop, state] of watched) {
            if (nowAt <= state.dueAt) continue
            state.restarts++
            state.dueAt = nowAt + options.graceMs
            yield* Effect.logError(
              `${loop} has been silent for ${nowAt - state.heardAt} ms and is started afresh`
            )
            yield* Effect.ignore(
              context.ref(HistorianKey).tell("Happened", {
                kind: "restart",
                subject: loop,
                detail: `silent for ${Math.round((nowAt - state.heardAt) / 1000)} s`
              })
            )
            yield* Effect.ignore(restart(context, loop))
          }
          const healthy = [...watched.values()].every((state) => !state.vital || state.restarts === 0)
          if (healthy) yield* manager.alive
          yield* alarm.ringIn(options.roundMs)
        }),
        Report: Effect.fnUntraced(function* () {
          const nowAt = yield* monotonicMs
          return [...watched].map(
            ([loop, state]): LoopHealth => ({
              loop,
              lastBeatAtMs: state.lastBeatAtMs,
              silentMs: nowAt - state.heardAt,
              overdue: state.restarts > 0 || nowAt > state.dueAt,
              restarts: state.restarts
            })
          )
        })
      })
    })
  )

/**
 * The health loop: looks at the machine at its own pace, whatever network and main loop do, keeps the last reports and
 * sends each once. A report that does not go through is not sent again: the next one is fresher.
 */
import { Effect, Exit } from "effect"
import { type ActorContext, Behaviour } from "../kernel/index.ts"
import { DeviceClock } from "../ports/DeviceClock.ts"
import { HostProbe } from "../ports/HostProbe.ts"
import { Ledger } from "../ports/Ledger.ts"
import { ServerLink } from "../ports/ServerLink.ts"
import type { HealthReport } from "../schemas/Health.ts"
import { HealthLoopProtocol } from "../schemas/protocols/HealthLoop.ts"
import { blockedTexts } from "../schemas/Refusals.ts"
import { software } from "../schemas/Version.ts"
import { makeAlarm } from "./Alarm.ts"
import { JailGuardKey, MainLoopKey, TrustKeeperKey, WatchdogKey } from "./ClientKeys.ts"
import { jittered } from "./Delays.ts"
import { plainText } from "./PlainText.ts"

export interface HealthOptions {
  readonly intervalMs: number
  /** SHA-256 of the configuration in force, as text; null where there is none. */
  readonly configurationDigest: string | null
}

/** Reports kept in memory. */
const historyLength = 120
/** One look is a few file reads and one request, each with its own time limit. */
const lookWithinMs = 180_000
/** The others are asked briefly: a report without them is better than none. */
const askTimeoutMs = 2_000
/** The first look comes soon, so that a new device is not blank for a minute. */
const firstMs = 2_000

type Asking = Pick<ActorContext<never>, "ref">

/** What is weaker than it should be, in words. */
const degradations = Effect.fnUntraced(function* (context: Asking) {
  const status = yield* Effect.option(
    context.ref(MainLoopKey).ask("Status", undefined, { timeoutMs: askTimeoutMs })
  )
  const jail = yield* Effect.option(
    context.ref(JailGuardKey).ask("Verdict", undefined, { timeoutMs: askTimeoutMs })
  )
  const loops = yield* Effect.option(
    context.ref(WatchdogKey).ask("Report", undefined, { timeoutMs: askTimeoutMs })
  )
  const blocked = status._tag === "Some" ? status.value.blocked : null
  const degraded: Array<string> = blocked === null ? [] : [`${blocked}: ${blockedTexts[blocked]}`]
  if (status._tag === "None") degraded.push("main_loop: it does not answer")
  if (jail._tag === "Some") {
    if (jail.value.problem !== null) degraded.push(`no_jail: ${jail.value.problem}`)
    for (const note of jail.value.report?.notes ?? []) degraded.push(`jail: ${note}`)
  }
  if (loops._tag === "Some") {
    for (const loop of loops.value)
      if (loop.overdue) degraded.push(`silent: ${loop.loop} for ${loop.silentMs} ms`)
  }
  return { blocked, degraded: degraded.slice(0, 32).map((text) => plainText(text, 200)) }
})

/** One report. A ledger that cannot be read shows as a degradation, not as a missing report. */
const look = Effect.fnUntraced(function* (context: Asking, options: HealthOptions) {
  const probe = yield* HostProbe
  const ledger = yield* Ledger
  const clock = yield* DeviceClock
  const figures = yield* probe.figures
  const work = yield* Effect.option(Effect.all([ledger.counts, ledger.outboxSize]))
  const { blocked, degraded } = yield* degradations(context)
  const [counts, size] =
    work._tag === "Some"
      ? work.value
      : [
          { succeeded: 0, failed: 0, rejected: 0 },
          { items: 0, bytes: 0 }
        ]
  const report: HealthReport = {
    ...figures,
    at_ms: yield* clock.nowMs,
    software,
    configuration_digest: options.configurationDigest,
    work: { ...counts, outbox_items: size.items, outbox_bytes: size.bytes },
    blocked,
    degraded: work._tag === "Some" ? degraded : [...degraded.slice(0, 31), "ledger: it cannot be read"]
  }
  return report
})

/** Sends a report once, if there is anybody to send it to and the device is let in. */
const send = Effect.fnUntraced(function* (context: Asking, report: HealthReport) {
  const link = yield* ServerLink
  const clock = yield* DeviceClock
  const view = yield* context.ref(TrustKeeperKey).ask("View", undefined, { timeoutMs: askTimeoutMs })
  if (view.phase !== "accepted") return false
  const answer = yield* link.health(report)
  yield* clock.accept(answer.serverTimeMs)
  return true
})

/** The health loop's behaviour. */
export const healthLoop = (options: HealthOptions) =>
  Behaviour.make(HealthLoopProtocol, (context) =>
    Effect.gen(function* () {
      const history: Array<HealthReport> = []
      let looking = false
      const watchdog = context.ref(WatchdogKey)
      const alarm = yield* makeAlarm(context.self.tell("Due"))
      const beat = (withinMs: number, done = false) =>
        Effect.andThen(
          context.beat,
          Effect.ignore(watchdog.tell("Beat", { loop: "health-loop", withinMs, done }))
        )
      const task = Effect.gen(function* () {
        const report = yield* look(context, options)
        const sent = yield* Effect.orElseSucceed(send(context, report), () => false)
        return { report, sent }
      })
      yield* beat(lookWithinMs)
      yield* alarm.ringIn(Math.min(firstMs, options.intervalMs))
      return context.handlers({
        Due: () =>
          Effect.suspend(() => {
            if (looking) return Effect.void
            looking = true
            return Effect.andThen(
              beat(lookWithinMs),
              context.startTask(task, (exit) => [
                "Looked",
                Exit.isSuccess(exit) ? exit.value : { report: null, sent: false }
              ])
            )
          }),
        Looked: Effect.fnUntraced(function* ({ payload }) {
          looking = false
          if (payload.report === null) yield* Effect.logWarning("the machine's health could not be read")
          else history.push(payload.report)
          if (history.length > historyLength) history.shift()
          const pauseMs = yield* jittered(options.intervalMs)
          yield* beat(pauseMs + lookWithinMs, true)
          yield* alarm.ringIn(pauseMs)
        }),
        History: () => Effect.sync(() => [...history]),
        Restart: () => context.stopSelf
      })
    })
  )

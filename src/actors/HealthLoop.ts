/**
 * The health loop: looks at the machine at its own pace, whatever network and main loop do, keeps the last reports and
 * sends each once. A report that does not go through is not sent again: the next one is fresher.
 */
import { Effect, Exit, Option, Result } from "effect"
import { type ActorContext, Behaviour } from "../kernel/index.ts"
import { DeviceClock } from "../ports/DeviceClock.ts"
import { HostProbe } from "../ports/HostProbe.ts"
import { Identity } from "../ports/Identity.ts"
import { Ledger } from "../ports/Ledger.ts"
import { ServerLink } from "../ports/ServerLink.ts"
import type { Condition } from "../schemas/Conditions.ts"
import { type HealthReport, healthVersion, type LinkHealth, sampleOf } from "../schemas/Health.ts"
import { HealthLoopProtocol } from "../schemas/protocols/HealthLoop.ts"
import type { MainLoopStatus } from "../schemas/protocols/MainLoop.ts"
import { software } from "../schemas/Version.ts"
import { makeAlarm } from "./Alarm.ts"
import {
  ConnectivityKey,
  HistorianKey,
  JailGuardKey,
  MainLoopKey,
  TrustKeeperKey,
  WatchdogKey
} from "./ClientKeys.ts"
import { jittered } from "./Delays.ts"
import { condition, gatherConditions } from "./DeviceConditions.ts"
import { plainText } from "./PlainText.ts"

export interface HealthOptions {
  readonly intervalMs: number
  /** SHA-256 of the configuration in force, as text; null where there is none. */
  readonly configurationDigest: string | null
  /** Digest of the settings in force, whatever they came from. */
  readonly settingsDigest: string
  /** What the start found to be weaker than it should be. */
  readonly standing: ReadonlyArray<Condition>
  /** Whether this program keeps an agent. */
  readonly hasAgent: boolean
}

/** Reports kept in memory. */
const reportsKept = 60
/** One look is a few file reads and one request, each with its own time limit. */
const lookWithinMs = 180_000
/** The others are asked briefly: a report without them is better than none. */
const askTimeoutMs = 2_000
/** The first look comes soon, so that a new device is not blank for a minute. */
const firstMs = 2_000

const maximumDegraded = 32
/** What only a turn of the main loop finds out; all else is asked for anew. */
const turnCodes: ReadonlySet<string> = new Set([
  "clock_unproven",
  "root_expired",
  "root_expiring",
  "ledger_rolled_back",
  "cloned",
  "disk_low",
  "disk_unknown",
  "outbox_full"
])

type Asking = Pick<ActorContext<never>, "ref">

/** What the machine itself lacks. */
const machineConditions = ({ processes }: Pick<HealthReport, "processes">): ReadonlyArray<Condition> =>
  processes.required.filter(({ running }) => !running).map(({ name }) => condition("process_missing", name))

/** What the others know of themselves; whoever does not answer is left out, or said to be silent. */
const parts = Effect.fnUntraced(function* (context: Asking) {
  const briefly = { timeoutMs: askTimeoutMs }
  const clock = yield* DeviceClock
  const loop = yield* Effect.option(context.ref(MainLoopKey).ask("Status", undefined, briefly))
  const jail = yield* Effect.option(context.ref(JailGuardKey).ask("Verdict", undefined, briefly))
  const link = yield* Effect.option(context.ref(ConnectivityKey).ask("Status", undefined, briefly))
  const unknown: LinkHealth = { layer: "ok", detail: "", since_at_ms: yield* clock.nowMs, last_outage: null }
  return {
    loop: Option.getOrNull(loop),
    jail: Option.getOrNull(jail)?.report ?? null,
    link: Option.getOrElse(link, () => unknown)
  }
})

/** Turn by turn, what the main loop found; and what the parts say now. Each code and detail once. */
const degradations = Effect.fnUntraced(function* (
  context: Asking,
  options: HealthOptions,
  found: ReadonlyArray<Condition>,
  loop: MainLoopStatus | null
) {
  const now = yield* gatherConditions(context, options.standing, options.hasAgent)
  const said = [
    ...(loop === null ? [condition("loop_silent", "main-loop does not answer")] : []),
    ...found,
    ...now,
    ...(loop?.degraded ?? []).filter(({ code }) => turnCodes.has(code))
  ]
  const once = new Map(said.map((entry) => [`${entry.code} ${entry.detail}`, entry]))
  return [...once.values()].slice(0, maximumDegraded)
})

/** One report. A ledger that cannot be read shows as a degradation, not as a missing report. */
const look = Effect.fnUntraced(function* (context: Asking, options: HealthOptions) {
  const probe = yield* HostProbe
  const ledger = yield* Ledger
  const clock = yield* DeviceClock
  const identity = yield* Identity
  const { machine, ...figures } = yield* probe.figures
  const work = yield* Effect.result(Effect.all([ledger.counts, ledger.outboxSize]))
  const { jail, link, loop } = yield* parts(context)
  const [counts, size] = Result.isSuccess(work)
    ? work.success
    : [
        { succeeded: 0, failed: 0, rejected: 0 },
        { items: 0, bytes: 0 }
      ]
  const found = [
    ...(Result.isFailure(work) ? [condition("ledger_unreadable", work.failure.message)] : []),
    ...machineConditions(figures)
  ]
  const report: HealthReport = {
    ...figures,
    version: healthVersion,
    at_ms: yield* clock.nowMs,
    identity: { ...machine, device: identity.id, incarnation: ledger.incarnation },
    software,
    jail: jail === null ? null : plainText(`${jail.engine} ${jail.version}`, 64),
    isolation: jail?.isolation ?? null,
    configuration_digest: options.configurationDigest,
    settings_digest: options.settingsDigest,
    link,
    work: {
      ...counts,
      outbox_items: size.items,
      outbox_bytes: size.bytes,
      turns: loop?.turns ?? 0,
      polls: loop?.polls ?? 0,
      poll_failures: loop?.allFailures ?? 0
    },
    blocked: loop?.blocked ?? null,
    degraded: yield* degradations(context, options, found, loop)
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
      const reports: Array<HealthReport> = []
      const historian = context.ref(HistorianKey)
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
          const { report } = payload
          if (report === null) yield* Effect.logWarning("the machine's health could not be read")
          else {
            reports.push(report)
            const { degraded, identity } = report
            yield* Effect.ignore(
              historian.tell("Seen", { sample: sampleOf(report), degraded, boot: identity.boot })
            )
          }
          if (reports.length > reportsKept) reports.shift()
          const pauseMs = yield* jittered(options.intervalMs)
          yield* beat(pauseMs + lookWithinMs, true)
          yield* alarm.ringIn(pauseMs)
        }),
        Reports: () => Effect.sync(() => [...reports]),
        Machine: () =>
          Effect.sync(() => {
            const last = reports.at(-1)
            return last === undefined ? [] : machineConditions(last)
          }),
        Restart: () => context.stopSelf
      })
    })
  )

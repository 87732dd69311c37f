/**
 * The historian: gathers what happened and writes it in few commits, so that a card lasts: events within seconds, figures
 * every five minutes. Without a disk it keeps the last events in memory, says so, and tries again.
 */
import { DateTime, Effect, Scope } from "effect"
import { Behaviour } from "../kernel/index.ts"
import { DeviceClock } from "../ports/DeviceClock.ts"
import { History, type HistoryBook } from "../ports/History.ts"
import type { Condition } from "../schemas/Conditions.ts"
import { brokenLayers } from "../schemas/Connectivity.ts"
import type { HealthSample } from "../schemas/Health.ts"
import type { HistoryEvent } from "../schemas/History.ts"
import { Limits } from "../schemas/Limits.ts"
import { HistorianProtocol, type HistorianStatus } from "../schemas/protocols/Historian.ts"
import { software } from "../schemas/Version.ts"
import { makeAlarm, monotonicMs } from "./Alarm.ts"
import { plainText } from "./PlainText.ts"

export interface HistorianOptions {
  /** Digest of the settings in force. */
  readonly settingsDigest: string
}

/** Events that come together are written together. */
const gatherMs = 2_000
const retryMs = 60_000
/** One sample in this time is kept. */
const sampleMs = 300_000
/** Kept in memory: until they are written, and for a look without a disk. */
const maximumPending = 200
const maximumRecent = 200
/** What a look shows. */
const viewEvents = 500
const viewSamples = 400
/** A device's time may drift against its steady clock; beyond this it leapt. */
const leapMs = 3_600_000

type Told = Omit<HistoryEvent, "at_ms">

const timeText = (ms: number): string => DateTime.formatIso(DateTime.makeUnsafe(ms))

/** What one life knows. */
class Notes {
  book: HistoryBook | undefined = undefined
  readonly status: { -readonly [K in keyof HistorianStatus]: HistorianStatus[K] } = {
    trouble: null,
    setAside: null,
    leapt: null
  }
  events: Array<HistoryEvent> = []
  recent: Array<HistoryEvent> = []
  samples: Array<HealthSample> = []
  sampledAt = Number.NEGATIVE_INFINITY
  codes: ReadonlySet<string> | undefined = undefined
  /** Whether a write is under way already: events that go on and on must not put it off. */
  due = true
  boot: string | null = null

  add(event: HistoryEvent): void {
    this.events = [...this.events, event].slice(-maximumPending)
    this.recent = [...this.recent, event].slice(-maximumRecent)
  }

  /** What came and went since the last time; the layers of the network have events of their own. */
  differences(degraded: ReadonlyArray<Condition>): ReadonlyArray<Told> {
    const now = new Map(
      degraded
        .filter(({ code }) => !(brokenLayers as ReadonlyArray<string>).includes(code))
        .map((entry) => [entry.code as string, entry.detail])
    )
    const before = this.codes ?? new Set<string>()
    this.codes = new Set(now.keys())
    const come = [...now].filter(([code]) => !before.has(code))
    const gone = [...before].filter((code) => !now.has(code))
    return [
      ...come.map(([subject, detail]): Told => ({ kind: "condition", subject, detail })),
      ...gone.map((subject): Told => ({ kind: "mended", subject, detail: "" }))
    ]
  }
}

/** What a start has to tell: how the last life ended, whether the settings are others. */
const opening = Effect.fnUntraced(function* (book: HistoryBook, options: HistorianOptions) {
  const [last] = yield* book.events(1)
  const settings = yield* book.mark("settings")
  const ended =
    last === undefined
      ? "the first of this history"
      : last.kind === "stop"
        ? "the last one ended in order"
        : "the last one was cut off"
  const told: Array<Told> = [{ kind: "start", subject: software, detail: ended }]
  if (settings !== options.settingsDigest) {
    yield* book.setMark("settings", options.settingsDigest)
    if (settings !== null)
      told.push({ kind: "configuration", subject: options.settingsDigest.slice(0, 19), detail: "" })
  }
  if (book.setAside !== null)
    told.push({ kind: "set_aside", subject: "history.db", detail: plainText(book.setAside, 200) })
  return told
})

/** The historian's behaviour. One program has one; `begun` outlives its restarts. */
export const historian = (options: HistorianOptions) => {
  let begun = false
  return Behaviour.make(HistorianProtocol, (context) =>
    Effect.gen(function* () {
      const history = yield* History
      const clock = yield* DeviceClock
      const scope = yield* Effect.scope
      const notes = new Notes()
      const alarm = yield* makeAlarm(context.self.tell("Due"))
      let seen = { deviceMs: yield* clock.nowMs, at: yield* monotonicMs }

      const happened = Effect.fnUntraced(function* (told: Told) {
        notes.add({ ...told, at_ms: yield* clock.nowMs })
      })

      /** Whether the device's time went another way than the steady clock since the last look. */
      const watchTime = Effect.gen(function* () {
        const deviceMs = yield* clock.nowMs
        const at = yield* monotonicMs
        const leap = deviceMs - seen.deviceMs - (at - seen.at)
        const detail = `from ${timeText(seen.deviceMs)} to ${timeText(deviceMs)}`
        seen = { deviceMs, at }
        if (Math.abs(leap) < leapMs) return
        yield* happened({ kind: "clock_leap", subject: `${Math.round(leap / 1000)} s`, detail })
        if (Math.abs(leap) > Limits.clockLeapAlarmMs) notes.status.leapt = detail
      })

      const open = Effect.gen(function* () {
        const book = yield* Scope.provide(history.open, scope)
        notes.book = book
        notes.status.setAside = book.setAside
        if (begun) return book
        const told = yield* opening(book, options)
        begun = true
        // They come before what happened while the book was being opened.
        const at_ms = notes.events[0]?.at_ms ?? (yield* clock.nowMs)
        const first = told.map((event) => ({ ...event, at_ms }))
        notes.events = [...first, ...notes.events]
        notes.recent = [...first, ...notes.recent]
        return book
      })

      /** Writes what waits. What fails is tried again, and shown meanwhile. */
      const write = Effect.gen(function* () {
        notes.due = false
        yield* watchTime
        const book = notes.book ?? (yield* open)
        const { events, samples } = notes
        if (events.length + samples.length > 0) yield* book.add(events, samples)
        notes.events = []
        notes.samples = []
        notes.status.trouble = null
      }).pipe(
        Effect.catch((error) =>
          Effect.gen(function* () {
            if (notes.status.trouble === null) yield* Effect.logWarning(error.message)
            notes.status.trouble = error.message
            notes.due = true
            yield* alarm.ringIn(retryMs)
          })
        )
      )

      const gather = Effect.suspend(() => {
        if (notes.due) return Effect.void
        notes.due = true
        return alarm.ringIn(gatherMs)
      })

      const takeBoot = Effect.fnUntraced(function* (boot: string | null) {
        if (boot === null || boot === notes.boot || notes.book === undefined) return
        const known = yield* notes.book.mark("boot")
        notes.boot = boot
        if (known === boot) return
        yield* notes.book.setMark("boot", boot)
        yield* happened({ kind: "boot", subject: boot.slice(0, 36), detail: "" })
      })

      yield* alarm.ringIn(0)
      return context.handlers({
        Happened: ({ payload }) => Effect.andThen(happened(payload), gather),
        Seen: Effect.fnUntraced(function* ({ payload }) {
          yield* watchTime
          for (const told of notes.differences(payload.degraded)) yield* happened(told)
          yield* Effect.ignore(takeBoot(payload.boot))
          const at = yield* monotonicMs
          if (at - notes.sampledAt >= sampleMs) {
            notes.sampledAt = at
            notes.samples = [...notes.samples, payload.sample].slice(-maximumPending)
          }
          if (notes.events.length + notes.samples.length > 0) yield* gather
        }),
        View: Effect.fnUntraced(function* () {
          const { book } = notes
          if (book === undefined || notes.status.trouble !== null)
            return {
              events: [...notes.recent].reverse(),
              samples: [...notes.samples].reverse(),
              trouble: notes.status.trouble ?? "it is not open yet"
            }
          const written = yield* Effect.option(
            Effect.all([book.events(viewEvents), book.samples(viewSamples)])
          )
          const [events, samples] = written._tag === "Some" ? written.value : [[], []]
          return {
            events: [...[...notes.events].reverse(), ...events].slice(0, viewEvents),
            samples,
            trouble: written._tag === "Some" ? null : "it cannot be read"
          }
        }),
        Status: () => Effect.sync(() => ({ ...notes.status })),
        Close: () => Effect.andThen(happened({ kind: "stop", subject: "", detail: "" }), write),
        Due: () => write
      })
    })
  )
}

/** What a life of the historian remembers between two commits, and what a start has to tell. */
import { DateTime, Effect } from "effect"
import type { HistoryBook } from "../ports/History.ts"
import type { Condition } from "../schemas/Conditions.ts"
import { brokenLayers } from "../schemas/Connectivity.ts"
import type { HealthSample } from "../schemas/Health.ts"
import type { HistoryEvent } from "../schemas/History.ts"
import { Limits } from "../schemas/Limits.ts"
import type { HistorianStatus } from "../schemas/protocols/Historian.ts"
import { software } from "../schemas/Version.ts"
import { plainText } from "./PlainText.ts"

/** Kept in memory: until they are written, and for a look without a disk. */
const maximumPending = 200
/** One sample in this time is kept. */
const sampleMs = 300_000
/** A device's time may drift against its steady clock; beyond this it leapt. */
const leapMs = 3_600_000

/** An event that happens now. */
export type Told = Omit<HistoryEvent, "at_ms">

const timeText = (ms: number): string => DateTime.formatIso(DateTime.makeUnsafe(ms))

/** What one life knows. */
export class HistoryNotes {
  book: HistoryBook | undefined = undefined
  /** Closes the book. */
  close: Effect.Effect<void> = Effect.void
  boot: string | null = null
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
  private time: { readonly deviceMs: number; readonly at: number }

  constructor(deviceMs: number, at: number) {
    this.time = { deviceMs, at }
  }

  add(event: HistoryEvent): void {
    this.events = [...this.events, event].slice(-maximumPending)
    this.recent = [...this.recent, event].slice(-maximumPending)
  }

  /** Events to begin with, which come before all that happened since. */
  addFirst(events: ReadonlyArray<HistoryEvent>): void {
    this.events = [...events, ...this.events]
    this.recent = [...events, ...this.recent]
  }

  /** Takes a sample where the last one is old enough. */
  sample(sample: HealthSample, at: number): void {
    if (at - this.sampledAt < sampleMs) return
    this.sampledAt = at
    this.samples = [...this.samples, sample].slice(-maximumPending)
  }

  /** Whether the device's time went another way than the steady clock since the last look; then the event for it. */
  watchTime(deviceMs: number, at: number): Told | undefined {
    const leap = deviceMs - this.time.deviceMs - (at - this.time.at)
    const detail = `from ${timeText(this.time.deviceMs)} to ${timeText(deviceMs)}`
    this.time = { deviceMs, at }
    if (Math.abs(leap) < leapMs) return undefined
    if (Math.abs(leap) > Limits.clockLeapAlarmMs) this.status.leapt = detail
    return { kind: "clock_leap", subject: `${Math.round(leap / 1000)} s`, detail }
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
export const opening = Effect.fnUntraced(function* (book: HistoryBook, settingsDigest: string) {
  const [last] = yield* book.events(1)
  const settings = yield* book.mark("settings")
  const ended =
    last === undefined
      ? "the first of this history"
      : last.kind === "stop"
        ? "the last one ended in order"
        : "the last one was cut off"
  const told: Array<Told> = [{ kind: "start", subject: software, detail: ended }]
  if (settings !== settingsDigest) {
    yield* book.setMark("settings", settingsDigest)
    if (settings !== null)
      told.push({ kind: "configuration", subject: settingsDigest.slice(0, 19), detail: "" })
  }
  if (book.setAside !== null)
    told.push({ kind: "set_aside", subject: "history.db", detail: plainText(book.setAside, 200) })
  return told
})

/**
 * The historian: gathers what happened and writes it in few commits, so that a card lasts: events within seconds, figures
 * every five minutes. Without a disk it keeps the last events in memory, says so, and tries again.
 */
import { Effect, Exit, Scope } from "effect"
import { Behaviour } from "../kernel/index.ts"
import { DeviceClock } from "../ports/DeviceClock.ts"
import { History } from "../ports/History.ts"
import type { HistoryView } from "../schemas/History.ts"
import { HistorianProtocol } from "../schemas/protocols/Historian.ts"
import { type Alarm, makeAlarm, monotonicMs } from "./Alarm.ts"
import { HistoryNotes, opening, type Told } from "./HistoryNotes.ts"

export interface HistorianOptions {
  /** Digest of the settings in force. */
  readonly settingsDigest: string
}

/** Events that come together are written together. */
const gatherMs = 2_000
const retryMs = 60_000
/** What a look shows. */
const viewEvents = 500
const viewSamples = 400

/** Whether this program's start was written; outlives the lives of its historian. */
interface Begun {
  start: boolean
}

/** Notes something that happens now, after a leap of time that came before it. */
const note = Effect.fnUntraced(function* (notes: HistoryNotes, told: Told | undefined) {
  const clock = yield* DeviceClock
  const at_ms = yield* clock.nowMs
  const leap = notes.watchTime(at_ms, yield* monotonicMs)
  for (const one of [leap, told]) if (one !== undefined) notes.add({ ...one, at_ms })
})

/** Opens the book for this life or until a write fails, and begins it with what a start has to tell. */
const open = Effect.fnUntraced(function* (
  notes: HistoryNotes,
  begun: Begun,
  scope: Scope.Scope,
  options: HistorianOptions
) {
  const history = yield* History
  const clock = yield* DeviceClock
  const own = yield* Scope.fork(scope)
  const book = yield* Effect.onError(Scope.provide(history.open, own), () => Scope.close(own, Exit.void))
  notes.book = book
  notes.close = Scope.close(own, Exit.void)
  notes.status.setAside = book.setAside
  if (begun.start) return book
  const told = yield* opening(book, options.settingsDigest)
  begun.start = true
  const at_ms = notes.events[0]?.at_ms ?? (yield* clock.nowMs)
  notes.addFirst(told.map((event) => ({ ...event, at_ms })))
  return book
})

/** Writes what waits. What fails is tried again, and shown meanwhile. */
const write = (
  notes: HistoryNotes,
  begun: Begun,
  scope: Scope.Scope,
  alarm: Alarm,
  options: HistorianOptions
) =>
  Effect.gen(function* () {
    notes.due = false
    yield* note(notes, undefined)
    const book = notes.book ?? (yield* open(notes, begun, scope, options))
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
        // Opened anew at the next try: what was damaged under us is then set aside.
        notes.book = undefined
        yield* notes.close
        notes.close = Effect.void
        yield* alarm.ringIn(retryMs)
      })
    )
  )

/** The kernel's name of this boot, where it is another than the last one. */
const takeBoot = Effect.fnUntraced(function* (notes: HistoryNotes, boot: string | null) {
  if (boot === null || boot === notes.boot || notes.book === undefined) return
  const known = yield* notes.book.mark("boot")
  if (known !== boot) {
    yield* notes.book.setMark("boot", boot)
    yield* note(notes, { kind: "boot", subject: boot, detail: "" })
  }
  notes.boot = boot
})

/** What is written, or what this life remembers. */
const viewOf = Effect.fnUntraced(function* (notes: HistoryNotes): Effect.fn.Return<HistoryView> {
  const { book, status } = notes
  const remembered = (trouble: string): HistoryView => ({
    events: [...notes.recent].reverse(),
    samples: [...notes.samples].reverse(),
    trouble
  })
  if (book === undefined) return remembered(status.trouble ?? "it is not open yet")
  const written = yield* Effect.result(Effect.all([book.events(viewEvents), book.samples(viewSamples)]))
  if (written._tag === "Failure") return remembered(written.failure.message)
  const [events, samples] = written.success
  return {
    events: [...[...notes.events].reverse(), ...events].slice(0, viewEvents),
    samples,
    trouble: status.trouble
  }
})

/** The historian's behaviour. A program has one. */
export const historian = (options: HistorianOptions) => {
  const begun: Begun = { start: false }
  return Behaviour.make(HistorianProtocol, (context) =>
    Effect.gen(function* () {
      const clock = yield* DeviceClock
      const scope = yield* Effect.scope
      const notes = new HistoryNotes(yield* clock.nowMs, yield* monotonicMs)
      const alarm = yield* makeAlarm(context.self.tell("Due"))
      const writing = write(notes, begun, scope, alarm, options)
      const gather = Effect.suspend(() => {
        if (notes.due) return Effect.void
        notes.due = true
        return alarm.ringIn(gatherMs)
      })
      yield* alarm.ringIn(0)
      return context.handlers({
        Happened: ({ payload }) => Effect.andThen(note(notes, payload), gather),
        Seen: Effect.fnUntraced(function* ({ payload }) {
          yield* note(notes, undefined)
          for (const told of notes.differences(payload.degraded)) yield* note(notes, told)
          yield* Effect.ignore(takeBoot(notes, payload.boot))
          notes.sample(payload.sample, yield* monotonicMs)
          if (notes.events.length + notes.samples.length > 0) yield* gather
        }),
        View: () => viewOf(notes),
        Status: () => Effect.sync(() => ({ ...notes.status })),
        Close: () => Effect.andThen(note(notes, { kind: "stop", subject: "", detail: "" }), writing),
        Due: () => writing
      })
    })
  )
}

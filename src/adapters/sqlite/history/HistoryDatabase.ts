/**
 * The history's tables: a ring of events for each kind, and samples that grow sparser with age. What is beyond the bounds
 * goes in the same commit that brought the new.
 */
import type { HistoryMark } from "../../../ports/History.ts"
import type { HealthSample } from "../../../schemas/Health.ts"
import type { HistoryEvent } from "../../../schemas/History.ts"
import { Limits } from "../../../schemas/Limits.ts"
import type { DatabaseDefinition } from "../Database.ts"

export type HistoryMethods = {
  readonly add: (events: ReadonlyArray<HistoryEvent>, samples: ReadonlyArray<HealthSample>) => void
  /** Newest first. */
  readonly events: (maximum: number) => ReadonlyArray<HistoryEvent>
  readonly samples: (maximum: number) => ReadonlyArray<HealthSample>
  readonly mark: (name: HistoryMark) => string | null
  readonly setMark: (name: HistoryMark, value: string) => void
}

const version1 = `
CREATE TABLE events (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  at_ms INTEGER NOT NULL,
  kind TEXT NOT NULL,
  subject TEXT NOT NULL,
  detail TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_kind ON events (kind, id);

-- One sample for each step of each span: see the steps below.
CREATE TABLE samples (
  step_ms INTEGER NOT NULL,
  begins_at_ms INTEGER NOT NULL,
  sample TEXT NOT NULL,
  PRIMARY KEY (step_ms, begins_at_ms)
) STRICT, WITHOUT ROWID;

CREATE TABLE marks (
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
`

const minuteMs = 60_000

/** Every five minutes for a day, every hour for a month, every day for two years: how many are kept of each. */
export const sampleSteps: ReadonlyArray<{ readonly stepMs: number; readonly keep: number }> = [
  { stepMs: 5 * minuteMs, keep: 288 },
  { stepMs: 60 * minuteMs, keep: 720 },
  { stepMs: 24 * 60 * minuteMs, keep: 730 }
]

export const historyDatabase: DatabaseDefinition<HistoryMethods> = {
  name: "history",
  migrations: [version1],
  build: (database) => {
    const insertEvent = database.prepare(
      "INSERT INTO events (at_ms, kind, subject, detail) VALUES (?, ?, ?, ?)"
    )
    const pruneEvents = database.prepare(`
      DELETE FROM events WHERE kind = ? AND id <=
        (SELECT id FROM events WHERE kind = ? ORDER BY id DESC LIMIT 1 OFFSET ${Limits.historyEventsOfKind})`)
    // The first sample of a step stands for it.
    const insertSample = database.prepare(
      "INSERT INTO samples (step_ms, begins_at_ms, sample) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
    )
    const pruneSamples = database.prepare(`
      DELETE FROM samples WHERE step_ms = ? AND begins_at_ms <=
        (SELECT begins_at_ms FROM samples WHERE step_ms = ? ORDER BY begins_at_ms DESC LIMIT 1 OFFSET ?)`)
    const listEvents = database.prepare(
      "SELECT at_ms, kind, subject, detail FROM events ORDER BY id DESC LIMIT ?"
    )
    // The finest of those that begin together: a coarser one only where no finer reaches back so far.
    const listSamples = database.prepare(`
      SELECT sample FROM samples AS coarse WHERE begins_at_ms <
        (SELECT coalesce(min(begins_at_ms), 9007199254740991) FROM samples AS finer WHERE finer.step_ms < coarse.step_ms)
      ORDER BY begins_at_ms DESC LIMIT ?`)
    const readMark = database.prepare("SELECT value FROM marks WHERE name = ?")
    const writeMark = database.prepare(
      "INSERT INTO marks (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
    )
    return {
      add: (events, samples) => {
        for (const { at_ms, detail, kind, subject } of events) insertEvent.run(at_ms, kind, subject, detail)
        for (const kind of new Set(events.map((event) => event.kind))) pruneEvents.run(kind, kind)
        for (const sample of samples)
          for (const { stepMs } of sampleSteps)
            insertSample.run(stepMs, sample.at_ms - (sample.at_ms % stepMs), JSON.stringify(sample))
        if (samples.length > 0)
          for (const { keep, stepMs } of sampleSteps) pruneSamples.run(stepMs, stepMs, keep)
      },
      events: (maximum) => listEvents.all(maximum).map((row) => ({ ...row }) as unknown as HistoryEvent),
      samples: (maximum) => {
        const found = listSamples.all(maximum).map((row) => JSON.parse(String(row["sample"])) as HealthSample)
        // Where time ran backwards, steps of different length may hold the same sample, or overlap.
        const once = new Map(found.map((sample) => [sample.at_ms, sample]))
        return [...once.values()].sort((a, b) => b.at_ms - a.at_ms)
      },
      mark: (name) => {
        const row = readMark.get(name)
        return row === undefined ? null : String(row["value"])
      },
      setMark: (name, value) => {
        writeMark.run(name, value)
      }
    }
  }
}

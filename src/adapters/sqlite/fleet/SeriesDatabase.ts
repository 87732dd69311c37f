/**
 * The series database: health reports, and the figures of each device over time. Apart from the registry, so that they
 * never stand in the way of orders. Everything is counted by the time of arrival: a device's own clock may be anything.
 */
import type { HealthRetention, HealthSeries } from "../../../ports/HealthSeries.ts"
import {
  type HealthReport,
  type HealthSample,
  healthVersion,
  sampleOf,
  seriesFigures
} from "../../../schemas/Health.ts"
import type { DeviceId } from "../../../schemas/Ids.ts"
import { Limits } from "../../../schemas/Limits.ts"
import type { DatabaseDefinition, DatabaseSync } from "../Database.ts"
import { fromJson, integer, type Row, toJson } from "./FleetMethods.ts"

export type SeriesMethods = {
  readonly addHealth: (device: DeviceId, report: HealthReport, atMs: number, keep: HealthRetention) => void
  /** Newest first. */
  readonly health: (device: DeviceId, maximum: number) => ReadonlyArray<HealthReport>
  readonly series: (device: DeviceId, fromMs: number, untilMs: number, points: number) => HealthSeries
}

const version1 = `
CREATE TABLE health (
  id INTEGER PRIMARY KEY,
  device TEXT NOT NULL,
  received_at_ms INTEGER NOT NULL,
  reported_at_ms INTEGER NOT NULL,
  report TEXT NOT NULL
) STRICT;
CREATE INDEX health_by_device ON health (device, id);
CREATE UNIQUE INDEX health_by_time ON health (device, reported_at_ms);
`

const columns = seriesFigures.flatMap((name) => [`${name}_sum`, `${name}_count`])

/** Sums over steps: fine ones for the last days, coarse ones for as long as figures are kept. */
const figures = `
CREATE INDEX health_by_arrival ON health (received_at_ms);

CREATE TABLE figures (
  device TEXT NOT NULL,
  step_ms INTEGER NOT NULL,
  begins_at_ms INTEGER NOT NULL,
  ${seriesFigures.map((name) => `${name}_sum REAL NOT NULL, ${name}_count INTEGER NOT NULL`).join(",\n  ")},
  PRIMARY KEY (device, step_ms, begins_at_ms)
) STRICT, WITHOUT ROWID;
CREATE INDEX figures_by_age ON figures (step_ms, begins_at_ms);
`

const minuteMs = 60_000
const hourMs = 60 * minuteMs
const dayMs = 24 * hourMs
const fineMs = 5 * minuteMs
/** So long are the fine steps kept. */
const fineAgeMs = 2 * dayMs
/** Each report takes so much of what is too old away, whosever it is: more than it brings. */
const prunedAtOnce = 64

const adding = (database: DatabaseSync): SeriesMethods["addHealth"] => {
  const insert = database.prepare(
    "INSERT INTO health (device, received_at_ms, reported_at_ms, report) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
  )
  const pruneCount = database.prepare(`
    DELETE FROM health WHERE device = ? AND id <=
      (SELECT id FROM health WHERE device = ? ORDER BY id DESC LIMIT 1 OFFSET ?)`)
  const pruneAge = database.prepare(`
    DELETE FROM health WHERE id IN
      (SELECT id FROM health WHERE received_at_ms < ? ORDER BY received_at_ms LIMIT ${prunedAtOnce})`)
  const sum = database.prepare(`
    INSERT INTO figures (device, step_ms, begins_at_ms, ${columns.join(", ")})
    VALUES (?, ?, ?, ${columns.map(() => "?").join(", ")})
    ON CONFLICT (device, step_ms, begins_at_ms) DO UPDATE SET
      ${columns.map((name) => `${name} = ${name} + excluded.${name}`).join(", ")}`)
  const pruneFigures = database.prepare(`
    DELETE FROM figures WHERE (device, step_ms, begins_at_ms) IN
      (SELECT device, step_ms, begins_at_ms FROM figures WHERE step_ms = ? AND begins_at_ms < ?
       ORDER BY begins_at_ms LIMIT ${prunedAtOnce})`)
  return (device, report, atMs, { days, reports }) => {
    const added = insert.run(device, atMs, report.at_ms, toJson(report)).changes
    pruneCount.run(device, device, reports)
    pruneAge.run(atMs - days * dayMs)
    // A report that came twice counts once.
    if (added === 0) return
    const sample = sampleOf(report)
    const values = seriesFigures.flatMap((name) => [sample[name] ?? 0, sample[name] === null ? 0 : 1])
    for (const [stepMs, ageMs] of [
      [fineMs, fineAgeMs],
      [hourMs, days * dayMs]
    ] as const) {
      sum.run(device, stepMs, atMs - (atMs % stepMs), ...values)
      pruneFigures.run(stepMs, atMs - ageMs)
    }
  }
}

/** The step for a span: whole fine ones while those reach back far enough, else whole hours. */
const stepFor = (spanMs: number, points: number): { readonly baseMs: number; readonly stepMs: number } => {
  const wanted = Math.ceil(spanMs / points)
  const baseMs = spanMs <= fineAgeMs && wanted < hourMs ? fineMs : hourMs
  return { baseMs, stepMs: Math.max(1, Math.ceil(wanted / baseMs)) * baseMs }
}

const means = seriesFigures.map((name) => `sum(${name}_sum) / nullif(sum(${name}_count), 0) AS ${name}`)

const reading = (database: DatabaseSync): SeriesMethods["series"] => {
  // Steps begin at whole multiples, so one more than was asked for may be touched.
  const list = database.prepare(`
    SELECT begins_at_ms / CAST(? AS INTEGER) * CAST(? AS INTEGER) AS at_ms, ${means.join(", ")} FROM figures
    WHERE device = ? AND step_ms = ? AND begins_at_ms >= ? AND begins_at_ms < ?
    GROUP BY 1 ORDER BY 1 LIMIT ?`)
  return (device, fromMs, untilMs, points) => {
    const { baseMs, stepMs } = stepFor(Math.max(untilMs - fromMs, 1), Math.min(points, Limits.seriesPoints))
    const rows = list.all(stepMs, stepMs, device, baseMs, fromMs, untilMs, Limits.seriesPoints + 1)
    const samples = (rows as ReadonlyArray<Row>).map((row) => ({
      at_ms: integer(row, "at_ms"),
      ...Object.fromEntries(seriesFigures.map((name) => [name, row[name] ?? null]))
    })) as unknown as ReadonlyArray<HealthSample>
    return { stepMs, samples }
  }
}

export const seriesDatabase: DatabaseDefinition<SeriesMethods> = {
  name: "series",
  migrations: [version1, figures],
  build: (database) => {
    const list = database.prepare(`
      SELECT report FROM health WHERE device = ? AND report ->> '$.version' = ${healthVersion} ORDER BY id DESC LIMIT ?`)
    return {
      addHealth: adding(database),
      health: (device, maximum) =>
        list.all(device, maximum).map((row) => fromJson<HealthReport>(row, "report")),
      series: reading(database)
    }
  }
}

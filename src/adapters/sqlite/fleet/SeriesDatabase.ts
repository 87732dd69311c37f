/** The series database: health reports. Apart from the registry, so that figures never stand in the way of orders. */
import type { HealthReport } from "../../../schemas/Health.ts"
import type { DeviceId } from "../../../schemas/Ids.ts"
import { Limits } from "../../../schemas/Limits.ts"
import type { DatabaseDefinition } from "../Database.ts"
import { fromJson, toJson } from "./FleetMethods.ts"

export type SeriesMethods = {
  readonly addHealth: (device: DeviceId, report: HealthReport, atMs: number) => void
  /** Newest first. */
  readonly health: (device: DeviceId, maximum: number) => ReadonlyArray<HealthReport>
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

export const seriesDatabase: DatabaseDefinition<SeriesMethods> = {
  name: "series",
  migrations: [version1],
  build: (database) => {
    const insert = database.prepare(
      "INSERT INTO health (device, received_at_ms, reported_at_ms, report) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
    )
    const prune = database.prepare(`
      DELETE FROM health WHERE device = ? AND id <=
        (SELECT id FROM health WHERE device = ? ORDER BY id DESC LIMIT 1 OFFSET ${Limits.healthReports})`)
    const list = database.prepare("SELECT report FROM health WHERE device = ? ORDER BY id DESC LIMIT ?")
    return {
      addHealth: (device, report, atMs) => {
        insert.run(device, atMs, report.at_ms, toJson(report))
        prune.run(device, device)
      },
      health: (device, maximum) =>
        list.all(device, maximum).map((row) => fromJson<HealthReport>(row, "report"))
    }
  }
}

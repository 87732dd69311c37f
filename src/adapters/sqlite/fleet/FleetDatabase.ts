/** The fleet database as a database class: registry, orders, receipts, tokens, audit log. */
import type { DeviceStatus } from "../../../ports/FleetStore.ts"
import type { DatabaseDefinition, DatabaseSync } from "../Database.ts"
import { type AccessMethods, accessMethods } from "./Access.ts"
import { auditOf, smallTables } from "./Audit.ts"
import { deviceMethods } from "./Devices.ts"
import { type FleetMethods, integer, type Row, text } from "./FleetMethods.ts"
import { fleetMigrations } from "./FleetSchema.ts"
import { jobMethods } from "./Jobs.ts"
import { receiptMethods } from "./Receipts.ts"
import { type RetentionMethods, retentionMethods } from "./Retention.ts"
import { type RolloutMethods, rolloutMethods } from "./Rollouts.ts"

const counts = (database: DatabaseSync): FleetMethods["counts"] => {
  const devices = database.prepare("SELECT status, count(*) AS n FROM devices GROUP BY status")
  const jobs = database.prepare("SELECT state, count(*) AS n FROM jobs GROUP BY state")
  const tally = (rows: ReadonlyArray<Row>, column: string) =>
    Object.fromEntries(rows.map((row) => [text(row, column), integer(row, "n")]))
  const none: Record<DeviceStatus, number> = { pending: 0, accepted: 0, rejected: 0, revoked: 0 }
  return () => ({ devices: { ...none, ...tally(devices.all(), "status") }, jobs: tally(jobs.all(), "state") })
}

export const fleetDatabase: DatabaseDefinition<
  FleetMethods & RetentionMethods & RolloutMethods & AccessMethods
> = {
  name: "fleet",
  migrations: fleetMigrations,
  build: (database) => {
    const audit = auditOf(database)
    return {
      ...smallTables(database, audit),
      ...deviceMethods(database, audit),
      ...jobMethods(database, audit),
      ...receiptMethods(database),
      ...retentionMethods(database, audit),
      ...rolloutMethods(database, audit),
      ...accessMethods(database, audit),
      counts: counts(database)
    }
  }
}

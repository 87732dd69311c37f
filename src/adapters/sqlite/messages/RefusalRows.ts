/** How often what of whose was refused, as synchronous functions over one database. */
import type { RefusalRow } from "../../../ports/MessageStore.ts"
import { Limits } from "../../../schemas/Limits.ts"
import type { AgentName } from "../../../schemas/Topics.ts"
import type { DatabaseSync } from "../Database.ts"

export type RefusalMethods = {
  /** Adds to the counts. Beyond {@link Limits.refusalRows} those longest without news go. */
  readonly refused: (rows: ReadonlyArray<RefusalRow>) => void
  /** Of all, or of one: null stands for all who are no agents. */
  readonly refusals: (maximum: number, agent?: AgentName | null) => ReadonlyArray<RefusalRow>
  readonly refusalCounts: () => ReadonlyArray<Pick<RefusalRow, "code" | "count" | "lastAtMs">>
}

type Row = Readonly<Record<string, unknown>>

/** An agent's name is never empty. */
const strangers = ""

const toRefusal = (row: Row): RefusalRow => ({
  agent: row["agent"] === strangers ? null : (row["agent"] as RefusalRow["agent"]),
  code: row["code"] as RefusalRow["code"],
  count: row["count"] as number,
  lastAtMs: row["last_at_ms"] as number
})

export const refusalMethods = (database: DatabaseSync): RefusalMethods => {
  const raise = database.prepare(
    "UPDATE refusals SET count = count + ?, last_at_ms = max(last_at_ms, ?) WHERE agent = ? AND code = ?"
  )
  const insert = database.prepare("INSERT INTO refusals (count, last_at_ms, agent, code) VALUES (?, ?, ?, ?)")
  const trim = database.prepare(`
    DELETE FROM refusals WHERE (agent, code) IN (
      SELECT agent, code FROM refusals ORDER BY last_at_ms DESC, agent, code LIMIT -1 OFFSET ?)`)
  const all = database.prepare("SELECT * FROM refusals ORDER BY last_at_ms DESC, agent, code LIMIT ?")
  const ofOne = database.prepare(
    "SELECT * FROM refusals WHERE agent = ? ORDER BY last_at_ms DESC, code LIMIT ?"
  )
  const sums = database.prepare(
    "SELECT code, sum(count) AS count, max(last_at_ms) AS last_at_ms FROM refusals GROUP BY code ORDER BY code"
  )
  return {
    refused: (rows) => {
      let added = false
      for (const { agent, code, count, lastAtMs } of rows) {
        const values = [count, lastAtMs, agent ?? strangers, code] as const
        if (raise.run(...values).changes > 0) continue
        insert.run(...values)
        added = true
      }
      if (added) trim.run(Limits.refusalRows)
    },
    refusals: (maximum, agent) => {
      const rows = agent === undefined ? all.all(maximum) : ofOne.all(agent ?? strangers, maximum)
      return (rows as Array<Row>).map(toRefusal)
    },
    refusalCounts: () =>
      (sums.all() as Array<Row>).map((row) => ({
        code: row["code"] as RefusalRow["code"],
        count: row["count"] as number,
        lastAtMs: row["last_at_ms"] as number
      }))
  }
}

/**
 * What a server keeps beside a Mosquitto, as synchronous functions over one database: its agents' accounts there, and what
 * it took out of broker services' inboxes until that is dealt with.
 */
import type { DeviceId } from "../../../schemas/Ids.ts"
import type { AgentName } from "../../../schemas/Topics.ts"
import type { DatabaseSync } from "../Database.ts"

/** An agent's account at Mosquitto. */
export interface AccountRow {
  readonly agent: AgentName
  readonly device: DeviceId
  readonly password: string
}

/** Something that came to broker services. Who sent it is a claim. */
export interface NewArrival {
  readonly sender: AgentName
  readonly topic: string
  readonly payload: Uint8Array
}

export interface ArrivalRow extends NewArrival {
  /** Rises. */
  readonly place: number
}

export type MosquittoMethods = {
  readonly accounts: () => ReadonlyArray<AccountRow>
  readonly putAccount: (row: AccountRow) => void
  readonly dropAccount: (agent: AgentName) => void
  readonly arrived: (row: NewArrival) => void
  /** What waits of one sender, oldest first. */
  readonly arrivals: (sender: AgentName, maximum: number) => ReadonlyArray<ArrivalRow>
  /** How much waits, of whom. */
  readonly arrivalCounts: () => ReadonlyArray<{ readonly sender: AgentName; readonly count: number }>
  readonly arrivalsDone: (places: ReadonlyArray<number>) => void
  /** Puts one behind all others. */
  readonly arrivalLast: (place: number) => void
}

type Row = Readonly<Record<string, unknown>>

export const mosquittoMethods = (database: DatabaseSync): MosquittoMethods => {
  const accounts = database.prepare("SELECT agent, device, password FROM mosquitto_accounts ORDER BY agent")
  const putAccount = database.prepare(`
    INSERT INTO mosquitto_accounts (agent, device, password) VALUES (?, ?, ?)
    ON CONFLICT (agent) DO UPDATE SET device = excluded.device, password = excluded.password`)
  const dropAccount = database.prepare("DELETE FROM mosquitto_accounts WHERE agent = ?")
  const arrived = database.prepare("INSERT INTO mosquitto_arrivals (sender, topic, payload) VALUES (?, ?, ?)")
  const arrivals = database.prepare(
    "SELECT * FROM mosquitto_arrivals WHERE sender = ? ORDER BY place LIMIT ?"
  )
  const counts = database.prepare("SELECT sender, count(*) AS count FROM mosquitto_arrivals GROUP BY sender")
  const last = database.prepare(
    "UPDATE mosquitto_arrivals SET place = (SELECT max(place) FROM mosquitto_arrivals) + 1 WHERE place = ?"
  )
  const done = database.prepare("DELETE FROM mosquitto_arrivals WHERE place = ?")
  return {
    accounts: () => accounts.all() as unknown as ReadonlyArray<AccountRow>,
    putAccount: ({ agent, device, password }) => void putAccount.run(agent, device, password),
    dropAccount: (agent) => void dropAccount.run(agent),
    arrived: ({ payload, sender, topic }) => void arrived.run(sender, topic, payload),
    arrivals: (sender, maximum) =>
      (arrivals.all(sender, maximum) as Array<Row>).map((row) => ({
        place: row["place"] as number,
        sender: row["sender"] as AgentName,
        topic: row["topic"] as string,
        payload: row["payload"] as Uint8Array
      })),
    arrivalCounts: () => counts.all() as unknown as ReadonlyArray<{ sender: AgentName; count: number }>,
    arrivalsDone: (places) => {
      for (const place of places) done.run(place)
    },
    arrivalLast: (place) => void last.run(place)
  }
}

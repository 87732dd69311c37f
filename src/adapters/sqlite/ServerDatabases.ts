import type { DatabaseDefinition, Methods } from "./Database.ts"
import { fleetDatabase } from "./fleet/FleetDatabase.ts"
import { seriesDatabase } from "./fleet/SeriesDatabase.ts"
import { messagesDatabase } from "./messages/MessagesDatabase.ts"

/** Every database a server's worker thread may be asked to serve. */
export const serverDatabases: ReadonlyArray<DatabaseDefinition<Methods>> = [
  fleetDatabase,
  seriesDatabase,
  messagesDatabase
]

/** The entry of a ledger's thread in tests: what `client.ts` does first. */
import { clientDatabases } from "../../../src/adapters/sqlite/ClientDatabases.ts"
import { isDatabaseWorker, serveDatabase } from "../../../src/adapters/sqlite/DatabaseWorker.ts"

if (isDatabaseWorker()) serveDatabase(clientDatabases)

/**
 * What a worker thread of `client.js` evaluates in place of the program: its databases alone. A thread that loaded the whole
 * program would hold as much memory as the program. `stays` tells the prologue that nothing else is to be evaluated.
 *
 * @module
 */
import { clientDatabases } from "../adapters/sqlite/ClientDatabases.ts"
import { isDatabaseWorker, serveDatabase } from "../adapters/sqlite/DatabaseWorker.ts"

export const stays = isDatabaseWorker()

if (stays) serveDatabase(clientDatabases)

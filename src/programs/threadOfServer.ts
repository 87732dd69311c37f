/**
 * What a worker thread of `server.js` evaluates in place of the program: its databases alone. A thread that loaded the whole
 * program would hold as much memory as the program. `stays` tells the prologue that nothing else is to be evaluated.
 *
 * @module
 */

import { isDatabaseWorker, serveDatabase } from "../adapters/sqlite/DatabaseWorker.ts"
import { serverDatabases } from "../adapters/sqlite/ServerDatabases.ts"

export const stays = isDatabaseWorker()

if (stays) serveDatabase(serverDatabases)

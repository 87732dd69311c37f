/**
 * What a worker thread of `server.js` evaluates in place of the program: its databases, or broker services' cryptography,
 * and of these two only the one. A thread that loaded the whole program would hold as much memory as the program. `stays`
 * tells the prologue that nothing else is to be evaluated.
 *
 * @module
 */
import { isRelayThread } from "../adapters/relay/RelayRole.ts"
import { isDatabaseWorker, serveDatabase } from "../adapters/sqlite/DatabaseWorker.ts"
import { serverDatabases } from "../adapters/sqlite/ServerDatabases.ts"

export const stays = isDatabaseWorker() || isRelayThread()

if (isDatabaseWorker()) serveDatabase(serverDatabases)
// Bundled, this loads nothing: it evaluates what stands in the same file.
if (isRelayThread()) void import("../adapters/relay/RelayThread.ts").then(({ serveRelay }) => serveRelay())

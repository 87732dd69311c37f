/**
 * `server.js`, the Postern server.
 *
 * @module
 */
import { serverDatabases } from "../adapters/sqlite/ServerDatabases.ts"
import { runService } from "./Service.ts"
import { serverCommand } from "./server/Commands.ts"

runService(serverCommand(new URL(import.meta.url)), serverDatabases)

/**
 * `client.js`, the Postern client of a device: the client proper, which the warden starts (wardenOfClient.ts, which comes
 * first in the same file).
 *
 * @module
 */
import { clientDatabases } from "../adapters/sqlite/ClientDatabases.ts"
import { clientCommand } from "./client/ClientCommand.ts"
import { runService } from "./Service.ts"

runService(clientCommand(new URL(import.meta.url)), clientDatabases)

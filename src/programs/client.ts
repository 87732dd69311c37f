/**
 * `client.js`, the Postern client of a device.
 *
 * @module
 */
import { clientDatabases } from "../adapters/SqliteLedger.ts"
import { clientCommand } from "./client/ClientCommand.ts"
import { runService } from "./Service.ts"

runService(clientCommand(new URL(import.meta.url)), clientDatabases)

/**
 * `server.js`, the Postern server.
 *
 * @module
 */
import { isRelayThread } from "../adapters/relay/RelayRole.ts"
import { serverDatabases } from "../adapters/sqlite/ServerDatabases.ts"
import { runService } from "./Service.ts"
import { serverCommand } from "./server/Commands.ts"

// Not bundled, this file is the entry of its threads too; bundled, `threadOfServer` is.
if (isRelayThread()) void import("../adapters/relay/RelayThread.ts").then(({ serveRelay }) => serveRelay())
else runService(serverCommand(new URL(import.meta.url)), serverDatabases)

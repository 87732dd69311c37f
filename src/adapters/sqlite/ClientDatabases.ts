import { ledgerDatabase } from "./ledger/LedgerDatabase.ts"
import { agentDatabase } from "./messages/AgentDatabase.ts"

/** Every database a client's worker thread may be asked to serve. */
export const clientDatabases = [ledgerDatabase, agentDatabase]

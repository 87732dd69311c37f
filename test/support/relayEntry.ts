/** The entry of relay threads in tests. */
import { serveRelay } from "../../src/adapters/relay/RelayThread.ts"

serveRelay()

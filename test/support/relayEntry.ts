/** The entry of relay threads in tests, which can be told to die or to hang. */
import { parentPort } from "node:worker_threads"
import { isRelayThread } from "../../src/adapters/relay/RelayRole.ts"
import { serveRelay, type ToRelayThread } from "../../src/adapters/relay/RelayThread.ts"

export const relayEntry = new URL(import.meta.url)

/** Types of documents: to sign one ends the thread, or stops it. */
export const deadly = { ends: "test/ends", hangs: "test/hangs" }

const isAsked = (message: ToRelayThread, type: string): boolean =>
  message.type === "work" &&
  message.items.some(({ work }) => work.kind === "sign" && work.unsigned.type === type)

if (isRelayThread()) {
  parentPort?.on("message", (message: ToRelayThread) => {
    if (isAsked(message, deadly.ends)) process.exit(1)
    if (isAsked(message, deadly.hangs)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
  })
  serveRelay()
}

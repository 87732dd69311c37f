/** The entry of relay threads in tests. Signing a document of the type `test/dies` ends the thread, `test/hangs` stops it. */
import { parentPort } from "node:worker_threads"
import { serveRelay, type ToRelayThread } from "../../src/adapters/relay/RelayThread.ts"

const isAsked = (message: ToRelayThread, type: string): boolean =>
  message.type === "work" &&
  message.items.some(({ work }) => work.kind === "sign" && work.unsigned.type === type)

parentPort?.on("message", (message: ToRelayThread) => {
  if (isAsked(message, "test/dies")) process.exit(1)
  if (isAsked(message, "test/hangs")) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
})

serveRelay()

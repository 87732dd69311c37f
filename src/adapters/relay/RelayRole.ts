/** What a thread of broker services is told at its start; apart from its code, so that other threads need not load that. */
import { isMainThread, workerData } from "node:worker_threads"
import type { Engine } from "../../crypto/Engine.ts"
import type { RelayKeys } from "../../crypto/Relay.ts"

/** The `role` keeps it apart from workers of other kinds. */
export interface RelayRole {
  readonly role: "postern/relay"
  readonly engine: Engine["name"]
  readonly keys: RelayKeys
}

/** Whether this thread was started to do broker services' cryptography. */
export const isRelayThread = (): boolean =>
  !isMainThread &&
  typeof workerData === "object" &&
  workerData !== null &&
  (workerData as { role?: unknown }).role === "postern/relay"

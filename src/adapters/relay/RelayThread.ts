/**
 * The thread's side of {@link RelayPool}: work in, results out, as plain values that can be cloned. It holds broker services'
 * keys, which it is given at its start and when they change, and knows nothing else.
 *
 * @module
 */
import { isMainThread, parentPort, workerData } from "node:worker_threads"
import { Result } from "effect"
import type { Engine } from "../../crypto/Engine.ts"
import type { RefusedMessage } from "../../crypto/Messages.ts"
import { NobleEngine } from "../../crypto/NobleEngine.ts"
import {
  type Accepted,
  type Arrival,
  judgeArrival,
  makeOutgoing,
  type Outgoing,
  type RelayKeys,
  type RelayRecipient
} from "../../crypto/Relay.ts"
import { type SignedJson, signJson, type Unsigned } from "../../crypto/SignedJson.ts"
import { NativeCrypto } from "../NativeCrypto.ts"
import type { RelayRole } from "./RelayRole.ts"

/** One piece of work. Whatever chance it takes comes with it, so that it gives the same bytes when it is done again. */
export type RelayWork =
  | { readonly kind: "judge"; readonly arrival: Arrival }
  | {
      readonly kind: "outgoing"
      readonly accepted: Accepted
      readonly recipients: ReadonlyArray<RelayRecipient>
      readonly nowMs: number
      readonly entropy: Uint8Array
    }
  | { readonly kind: "sign"; readonly unsigned: Unsigned<SignedJson> }

/** A verdict without its class, which a clone would lose. */
export type JudgedPlain =
  | { readonly accepted: Accepted }
  | { readonly refused: Pick<RefusedMessage, "code" | "detail"> }

export type RelayValue = JudgedPlain | ReadonlyArray<Outgoing> | SignedJson

export type RelayResult =
  | { readonly id: number; readonly ok: true; readonly value: RelayValue }
  /** It threw, which is a mistake of ours. */
  | { readonly id: number; readonly ok: false; readonly reason: string }

export type ToRelayThread =
  | { readonly type: "keys"; readonly keys: RelayKeys }
  | {
      readonly type: "work"
      readonly items: ReadonlyArray<{ readonly id: number; readonly work: RelayWork }>
    }

export type FromRelayThread =
  | { readonly type: "ready" }
  | { readonly type: "results"; readonly results: ReadonlyArray<RelayResult> }

const judge = (engine: Engine, keys: RelayKeys, arrival: Arrival): JudgedPlain => {
  const judged = judgeArrival(engine, keys, arrival)
  if (Result.isSuccess(judged)) return { accepted: judged.success }
  const { code, detail } = judged.failure
  return { refused: { code, detail } }
}

const perform = (engine: Engine, keys: RelayKeys, work: RelayWork): RelayValue => {
  if (work.kind === "judge") return judge(engine, keys, work.arrival)
  if (work.kind === "sign") return signJson(engine, keys.signer, work.unsigned)
  const { accepted, entropy, nowMs, recipients } = work
  return makeOutgoing(engine, keys, accepted, recipients, nowMs, entropy)
}

const attempt = (
  engine: Engine,
  keys: RelayKeys,
  { id, work }: { readonly id: number; readonly work: RelayWork }
): RelayResult => {
  try {
    return { id, ok: true, value: perform(engine, keys, work) }
  } catch (error) {
    return { id, ok: false, reason: error instanceof Error ? error.message : String(error) }
  }
}

/** Serves the pool that started this thread; returns at once, and the thread lives until it is ended. */
export const serveRelay = (): void => {
  const port = parentPort
  if (port === null || isMainThread) throw new Error("this thread was not started to serve broker services")
  // An error leaves this thread as its message alone. Node throws inside each time it imports a key, and its stack takes longest.
  Error.stackTraceLimit = 0
  const role = workerData as RelayRole
  const engine = role.engine === "native" ? NativeCrypto : NobleEngine
  let { keys } = role
  const send = (message: FromRelayThread) => port.postMessage(message)
  port.on("message", (message: ToRelayThread) => {
    if (message.type === "keys") {
      keys = message.keys
      return
    }
    send({ type: "results", results: message.items.map((item) => attempt(engine, keys, item)) })
  })
  send({ type: "ready" })
}

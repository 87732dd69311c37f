/**
 * The port `RelayCrypto` on worker threads: the event loop, which carries all connections, stays free. Every sender's work
 * is done in its turn, and a message to many is cut into pieces that several threads take.
 *
 * @module
 */
import { availableParallelism } from "node:os"
import { Context, Effect, Layer, Redacted, Result } from "effect"
import { RefusedMessage } from "../../crypto/Messages.ts"
import { outgoingEntropyBytes, type RelayRecipient } from "../../crypto/Relay.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { Entropy } from "../../ports/Entropy.ts"
import { RelayCrypto, RelayCryptoError } from "../../ports/RelayCrypto.ts"
import type { SigningKey } from "../../schemas/Ids.ts"
import { brokerServices } from "../../schemas/Topics.ts"
import type { RelayIdentity } from "../mqtt/LocalRelayCrypto.ts"
import type { NodeKeyRing } from "../NodeKeys.ts"
import { type RelayFigures, RelayPool, type RelayPoolOptions } from "./RelayPool.ts"
import type { JudgedPlain, RelayValue, RelayWork } from "./RelayThread.ts"

export interface ThreadedRelayOptions extends Omit<RelayPoolOptions, "threads" | "engine" | "keys"> {
  readonly keys: RelayIdentity
  /** Null: one less than there are processors, and at least one. */
  readonly threads: number | null
}

/** How busy the threads are, and a way to end one for tests. */
export class RelayThreads extends Context.Service<
  RelayThreads,
  { readonly figures: Effect.Effect<RelayFigures>; readonly kill: (index: number) => Effect.Effect<void> }
>()("postern/adapters/RelayThreads") {}

/** Recipients of one piece of work. */
const pieceRecipients = 8

const piecesOf = (recipients: ReadonlyArray<RelayRecipient>): ReadonlyArray<ReadonlyArray<RelayRecipient>> =>
  Array.from({ length: Math.ceil(recipients.length / pieceRecipients) }, (_, index) =>
    recipients.slice(index * pieceRecipients, (index + 1) * pieceRecipients)
  )

/** Broker services' keys out of a node's: always the newest. */
export const relayIdentityOf = (ring: NodeKeyRing): RelayIdentity => ({
  signer: { seed: Redacted.value(ring.signingSeed), signingKey: ring.signingKey },
  get agreements() {
    return ring.agreements
  },
  get agreement() {
    return { key: ring.agreementKey, version: ring.encryption.version }
  }
})

const makePool = (options: RelayPoolOptions) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const pool = new RelayPool(options)
      pool.open()
      return pool
    }),
    (pool) => Effect.promise(() => pool.close())
  )

const toJudged = (value: JudgedPlain) =>
  "accepted" in value ? Result.succeed(value.accepted) : Result.fail(new RefusedMessage(value.refused))

/** Waits for no thread: work does, and hears where none comes. */
export const ThreadedRelayCrypto = (
  options: ThreadedRelayOptions
): Layer.Layer<RelayCrypto | RelayThreads, never, CryptoEngine | Entropy> =>
  Layer.effectContext(
    Effect.gen(function* () {
      const entropy = yield* Entropy
      const { name: engine } = yield* CryptoEngine
      const { keys } = options
      const threads = options.threads ?? Math.max(1, availableParallelism() - 1)
      const pool = yield* makePool({ ...options, threads, engine })
      /** What a thread gives for this work has the type that goes with its kind. */
      const ask = <A extends RelayValue>(sender: string, cost: number, work: RelayWork) =>
        Effect.callback<A, RelayCryptoError>((resume) => {
          const withdraw = pool.submit(sender, cost, work, (outcome) =>
            resume(outcome instanceof RelayCryptoError ? Effect.fail(outcome) : Effect.succeed(outcome as A))
          )
          return Effect.sync(withdraw)
        })
      const crypto: RelayCrypto["Service"] = {
        signingKey: keys.signer.signingKey as SigningKey,
        agreement: Effect.sync(() => keys.agreement),
        judge: (arrival) =>
          Effect.map(
            ask<JudgedPlain>(arrival.from, 2, {
              kind: "judge",
              // A view would take along the whole of what it is a view of.
              arrival: { ...arrival, wire: arrival.wire.slice() }
            }),
            toJudged
          ),
        outgoing: Effect.fnUntraced(function* (accepted, recipients, nowMs) {
          const sender = accepted._tag === "Closed" ? accepted.sealed.from : accepted.message.from
          const made = yield* Effect.forEach(
            piecesOf(recipients),
            (piece) =>
              Effect.flatMap(entropy.bytes(piece.length * outgoingEntropyBytes), (fresh) =>
                ask<Extract<RelayValue, ReadonlyArray<unknown>>>(sender, piece.length, {
                  kind: "outgoing",
                  accepted,
                  recipients: piece,
                  nowMs,
                  entropy: fresh
                })
              ),
            { concurrency: "unbounded" }
          )
          return made.flat()
        }),
        sign: (unsigned) => ask(brokerServices, 1, { kind: "sign", unsigned })
      }
      return Context.make(RelayCrypto, crypto).pipe(
        Context.add(RelayThreads, {
          figures: Effect.sync(() => pool.figures()),
          kill: (index) => Effect.sync(() => pool.kill(index))
        })
      )
    })
  )

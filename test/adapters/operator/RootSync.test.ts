/** An operator's copy of the trust root follows a server's chain, and no other. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { ManagementClient } from "../../../src/adapters/operator/ManagementClient.ts"
import { type OperatorHome, OperatorHomeAt } from "../../../src/adapters/operator/OperatorHome.ts"
import { signerOf } from "../../../src/adapters/operator/OperatorKeys.ts"
import { adoptChain, catchUp, ForeignRoot } from "../../../src/adapters/operator/RootSync.ts"
import { keepRoot, trustedRoot, verifyPastOrder } from "../../../src/adapters/operator/TrustStore.ts"
import { signDocument } from "../../../src/crypto/Documents.ts"
import { CryptoEngine } from "../../../src/ports/CryptoEngine.ts"
import type { DsseEnvelope } from "../../../src/schemas/Dsse.ts"
import type { TrustRoot } from "../../../src/schemas/TrustRoot.ts"
import {
  engine,
  operator,
  recovery,
  signedOrder,
  someDigest,
  stranger,
  trust
} from "../../support/operators.ts"
import { temporaryFolder } from "../support/folders.ts"

/** The same root as another version, with the stranger instead of the operator where that is said. */
const version = (number: number, isWithStranger = false, by = recovery): DsseEnvelope => {
  const { [operator.keyId]: own, ...others } = trust.root.keys
  const strange = {
    algorithm: "ed25519",
    public_key: stranger.signingKey,
    label: "stranger",
    recipient: stranger.recipient
  }
  const root = {
    ...trust.root,
    version: number,
    ...(isWithStranger
      ? {
          keys: { ...others, [stranger.keyId]: strange },
          roles: {
            ...trust.root.roles,
            root: { keys: [recovery.keyId], threshold: 1 },
            operators: { keys: [stranger.keyId], threshold: 1 }
          }
        }
      : { keys: { ...others, [operator.keyId]: own } })
  } as TrustRoot
  return signDocument(engine, "root", root, [signerOf(by)]).envelope
}

const honest = [trust.envelope, version(2), version(3, true)]

/** A server that carries these roots, three to a page. */
const serverWith = (chain: ReadonlyArray<DsseEnvelope>) =>
  Layer.succeed(ManagementClient, {
    address: "http://server",
    call: (_what, use) =>
      Effect.orDie(
        use({
          server: {
            roots: ({ query: { from } }: { readonly query: { readonly from: number } }) =>
              Effect.succeed({ roots: chain.slice(from - 1, from + 2) })
          }
        } as never)
      )
  })

const inHome = <A, E>(use: Effect.Effect<A, E, OperatorHome | CryptoEngine>): Effect.Effect<A, E> =>
  Effect.scoped(
    Effect.flatMap(temporaryFolder, (folder) =>
      Effect.provide(use, Layer.merge(OperatorHomeAt(`${folder}/home`), Layer.succeed(CryptoEngine, engine)))
    )
  )

const versionHere = Effect.map(trustedRoot, (held) => held?.root.version)

describe("an operator's copy of the trust root", () => {
  it.effect("follows the chain of a server, over as many pages as it takes, and remembers the way", () =>
    inHome(
      Effect.gen(function* () {
        yield* keepRoot(1, trust.envelope)
        const long = [...honest, ...[4, 5, 6, 7].map((number) => version(number, true))]
        assert.deepEqual(yield* Effect.provide(catchUp, serverWith(long)), { from: 1, to: 7 })
        const held = yield* trustedRoot
        assert.deepEqual(
          held?.history.map((root) => root.version),
          [1, 2, 3, 4, 5, 6, 7]
        )
        assert.deepEqual(yield* Effect.provide(catchUp, serverWith(long)), { from: 7, to: 7 })
        // A server that is behind takes nothing away.
        assert.deepEqual(yield* Effect.provide(catchUp, serverWith(honest)), { from: 7, to: 7 })
        assert.strictEqual(yield* versionHere, 7)
      })
    )
  )

  it.effect(
    "is not taken further by what its root keys did not sign, and refuses a foreign chain as a whole",
    () =>
      inHome(
        Effect.gen(function* () {
          yield* keepRoot(1, trust.envelope)
          const usurped = [trust.envelope, version(2), version(3, true, stranger), version(4, true)]
          const broken = yield* Effect.flip(Effect.provide(catchUp, serverWith(usurped)))
          assert.instanceOf(broken, ForeignRoot)
          assert.match(
            broken.message,
            /^ALARM: the trust root 3 that http:\/\/server carries does not come from yours/
          )
          assert.strictEqual(yield* versionHere, 2)
          const forked = [trust.envelope, version(2, true), version(3, true)]
          assert.instanceOf(yield* Effect.flip(Effect.provide(catchUp, serverWith(forked))), ForeignRoot)
          assert.strictEqual(yield* versionHere, 2)
        })
      )
  )

  it.effect("begins where its first root is proved by its digest, or by a key that signed it", () =>
    Effect.gen(function* () {
      const adopting = (proof: Parameters<typeof adoptChain>[0]) =>
        inHome(
          Effect.andThen(Effect.result(Effect.provide(adoptChain(proof), serverWith(honest))), versionHere)
        )
      assert.strictEqual(yield* adopting({ kind: "digest", digest: trust.digest }), 3)
      assert.strictEqual(yield* adopting({ kind: "digest", digest: someDigest("0") }), undefined)
      assert.strictEqual(yield* adopting({ kind: "signer", keyId: recovery.keyId }), 3)
      assert.strictEqual(yield* adopting({ kind: "signer", keyId: stranger.keyId }), undefined)
      const empty = inHome(
        Effect.flip(Effect.provide(adoptChain({ kind: "digest", digest: trust.digest }), serverWith([])))
      )
      assert.include((yield* empty).message, "it carries none yet")
    })
  )

  it.effect("tells what an operator of the day signed from what nobody might sign", () =>
    inHome(
      Effect.gen(function* () {
        for (const [at, envelope] of honest.entries()) yield* keepRoot(at + 1, envelope)
        const held = yield* trustedRoot
        if (held === undefined) return assert.fail("there is no root")
        const judged = (order: ReturnType<typeof signedOrder>) =>
          verifyPastOrder(engine, held, order.envelope)._tag === "Success"
        // Revoked by version 3: good for what names 1 or 2, not for what names 3.
        assert.isTrue(judged(signedOrder(1, { root_version: 2 })))
        assert.isFalse(judged(signedOrder(2, { root_version: 3 })))
        assert.isTrue(judged(signedOrder(3, { root_version: 3 }, stranger)))
        assert.isFalse(judged(signedOrder(4, { root_version: 1 }, recovery)))
      })
    )
  )
})

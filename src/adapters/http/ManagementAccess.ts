/** Who may do what: bearer tokens (kept as hashes) and roles. */
import { Effect, Layer, Redacted } from "effect"
import { utf8 } from "../../crypto/Bytes.ts"
import type { Engine } from "../../crypto/Engine.ts"
import { encodeHex } from "../../crypto/Hex.ts"
import { type ByteSource, base32Token } from "../../crypto/Unguessable.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { FleetStore } from "../../ports/FleetStore.ts"
import { Authorization, Caller, Forbidden, type Role, Unauthorized } from "../../schemas/ManagementApi.ts"
import { orUnavailable } from "./ManagementFailures.ts"

const tokenPrefix = "postern-token-v1."
const tokenPattern = /^postern-token-v1\.[a-z2-7]{52}$/

/** A fresh API token of 256 random bits. Shown once; only its hash is kept. */
export const makeToken = (source: ByteSource): Effect.Effect<Redacted.Redacted<string>> =>
  Effect.map(base32Token(source, 256), (random) => Redacted.make(`${tokenPrefix}${random}`))

/** SHA-256 in hexadecimal. No salt is needed where nobody can guess. */
export const hashToken = (engine: Engine, token: Redacted.Redacted<string>): string =>
  encodeHex(engine.sha256(utf8(Redacted.value(token))))

const rank: Record<Role, number> = { viewer: 0, operator: 1, admin: 2 }

/** Fails unless the caller has the role, or one above it. Gives the caller's name for the audit log. */
export const requireRole = (role: Role): Effect.Effect<string, Forbidden, Caller> =>
  Effect.flatMap(Caller, (caller) =>
    rank[caller.role] >= rank[role]
      ? Effect.succeed(caller.name)
      : Effect.fail(
          new Forbidden({
            message: `the token "${caller.name}" is for the role ${caller.role}, this takes ${role}`
          })
        )
  )

const unauthorized = new Unauthorized({ message: "the token is missing or not known here" })

export const AuthorizationByToken: Layer.Layer<Authorization, never, FleetStore | CryptoEngine> =
  Layer.effect(
    Authorization,
    Effect.gen(function* () {
      const store = yield* FleetStore
      const engine = yield* CryptoEngine
      return Authorization.of({
        bearer: (effect, { credential }) =>
          Effect.gen(function* () {
            if (!tokenPattern.test(Redacted.value(credential))) return yield* unauthorized
            const caller = yield* orUnavailable(
              store.tokenByHash(hashToken(engine, Redacted.make(Redacted.value(credential))))
            )
            if (caller === null) return yield* unauthorized
            return yield* Effect.provideService(effect, Caller, caller)
          })
      })
    })
  )

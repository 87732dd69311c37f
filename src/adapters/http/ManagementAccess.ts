/** Who may do what: bearer tokens (kept as hashes), roles, and how often. */
import { Clock, Effect, Layer, Predicate, Redacted } from "effect"
import { HttpApiError } from "effect/http-api"
import { utf8 } from "../../crypto/Bytes.ts"
import type { Engine } from "../../crypto/Engine.ts"
import { encodeHex } from "../../crypto/Hex.ts"
import { type ByteSource, base32Token } from "../../crypto/Unguessable.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { FleetStore, type TokenRow } from "../../ports/FleetStore.ts"
import { Authorization, Caller, Forbidden, type Role, Unauthorized } from "../../schemas/ManagementApi.ts"
import { BadRequest, TooManyRequests } from "../../schemas/ManagementErrors.ts"
import { orUnavailable } from "./ManagementFailures.ts"
import { endpointRoles, includes } from "./ManagementRoles.ts"
import { Rates } from "./Rates.ts"

const tokenPrefix = "postern-token-v1."
const tokenPattern = /^postern-token-v1\.[a-z2-7]{52}$/

/** A fresh API token of 256 random bits. Shown once; only its hash is kept. */
export const makeToken = (source: ByteSource): Effect.Effect<Redacted.Redacted<string>> =>
  Effect.map(base32Token(source, 256), (random) => Redacted.make(`${tokenPrefix}${random}`))

/** SHA-256 in hexadecimal. No salt is needed where nobody can guess. */
export const hashToken = (engine: Engine, token: Redacted.Redacted<string>): string =>
  encodeHex(engine.sha256(utf8(Redacted.value(token))))

/** Who asks, for the audit log. What the caller may do was decided before: see the table of roles. */
export const callerName: Effect.Effect<string, never, Caller> = Effect.map(Caller, ({ name }) => name)

const notAllowed = (caller: Caller["Service"], role: Role): Forbidden =>
  new Forbidden({ message: `the token "${caller.name}" is for the role ${caller.role}, this takes ${role}` })

const unauthorized = new Unauthorized({ message: "the token is missing or not known here" })

/** That a token was used is written this often at the most. */
const usedEveryMs = 60_000

/** Tokens by their text, in the store; when each was used last. */
const makeCallers = Effect.gen(function* () {
  const store = yield* FleetStore
  const engine = yield* CryptoEngine
  const noted = new Map<string, number>()
  const note = Effect.fnUntraced(function* ({ lastUsedAtMs, name }: TokenRow, nowMs: number) {
    const last = Math.max(noted.get(name) ?? 0, lastUsedAtMs ?? 0)
    if (nowMs - last < usedEveryMs) return
    noted.set(name, nowMs)
    yield* Effect.catch(store.tokenUsed(name, nowMs), (error) =>
      Effect.logWarning(`when the token ${name} was used is not written: ${error.reason}`)
    )
  })
  return Effect.fnUntraced(function* (credential: Redacted.Redacted<string>, nowMs: number) {
    if (!tokenPattern.test(Redacted.value(credential))) return yield* unauthorized
    const row = yield* orUnavailable(store.tokenByHash(hashToken(engine, credential)))
    if (row === null) return yield* unauthorized
    if (row.expiresAtMs !== null && row.expiresAtMs <= nowMs) {
      return yield* new Unauthorized({
        message: `the token "${row.name}" has expired`,
        help: "Have an admin rotate it: postern tokens rotate NAME."
      })
    }
    yield* note(row, nowMs)
    return { name: row.name, role: row.role }
  })
})

const places: Readonly<Record<string, string>> = {
  Params: "path",
  Query: "query",
  Headers: "headers",
  Payload: "body"
}

/** A request that could not be decoded; the platform hands on what failed in a box of its own. */
const undecoded = (failure: unknown): BadRequest | undefined => {
  const error = Predicate.hasProperty(failure, "error") ? failure.error : failure
  if (!HttpApiError.HttpApiSchemaError.is(error)) return undefined
  const place = places[error.kind]
  const reason = error.cause.message.replace(/\s+/g, " ").slice(0, 300)
  return place === undefined
    ? undefined
    : new BadRequest({ message: `the ${place} is not what this path takes: ${reason}` })
}

const requireRate = (waitMs: number, name: string, perMinute: number) =>
  waitMs === 0
    ? Effect.void
    : Effect.fail(
        new TooManyRequests({
          message: `the token "${name}" asks more than ${perMinute} times a minute`,
          retry_after_seconds: Math.ceil(waitMs / 1_000)
        })
      )

/** Lets callers in by their tokens, as often as they may ask and where their role allows. */
export const AuthorizationByToken = (
  requestsPerMinute: number
): Layer.Layer<Authorization, never, FleetStore | CryptoEngine> =>
  Layer.effect(
    Authorization,
    Effect.gen(function* () {
      const callerOf = yield* makeCallers
      const rates = new Rates(requestsPerMinute)
      return Authorization.of({
        bearer: (effect, { credential, endpoint, group }) =>
          Effect.gen(function* () {
            const nowMs = yield* Clock.currentTimeMillis
            const caller = yield* callerOf(Redacted.make(Redacted.value(credential)), nowMs)
            yield* requireRate(rates.take(caller.name, nowMs), caller.name, requestsPerMinute)
            const role = endpointRoles[`${group.identifier}.${endpoint.identifier}`]
            if (role === undefined || !includes(caller.role, role)) {
              return yield* notAllowed(caller, role ?? "admin")
            }
            return yield* Effect.provideService(effect, Caller, caller)
          }).pipe(Effect.mapError((failure) => undecoded(failure) ?? failure))
      })
    })
  )

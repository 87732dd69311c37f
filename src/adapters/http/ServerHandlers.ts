/** The management API's handlers for the server itself: its state, roots, tokens, audit log and figures. */
import { Clock, Effect, Redacted } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { Entropy } from "../../ports/Entropy.ts"
import { FleetStore, type TokenRow } from "../../ports/FleetStore.ts"
import { FleetTrust } from "../../ports/FleetTrust.ts"
import { Identity } from "../../ports/Identity.ts"
import { RetentionStore } from "../../ports/RetentionStore.ts"
import type { ServerId } from "../../schemas/Ids.ts"
import { Conflict, ManagementApi, NotFound, Refused, type Role } from "../../schemas/ManagementApi.ts"
import type { AuditQuery } from "../../schemas/ManagementViews.ts"
import { software } from "../../schemas/Version.ts"
import { callerName, hashToken, makeToken } from "./ManagementAccess.ts"
import { orUnavailable } from "./ManagementFailures.ts"
import type { ManagementOptions } from "./ManagementHandlers.ts"
import { laggardView, tokenView } from "./ManagementViews.ts"
import { messagingStatusOf } from "./MessagingStatusOf.ts"
import { pageSize } from "./Pages.ts"

/** Making, renewing and revoking tokens. */
const makeTokens = Effect.gen(function* () {
  const store = yield* FleetStore
  const engine = yield* CryptoEngine
  const entropy = yield* Entropy
  const known = Effect.fnUntraced(function* (name: string) {
    const row = (yield* orUnavailable(store.tokens)).find((token) => token.name === name)
    return row ?? (yield* new NotFound({ message: `there is no token named ${name}` }))
  })
  const requireFuture = (expiresAtMs: number | null, nowMs: number) =>
    expiresAtMs === null || expiresAtMs > nowMs
      ? Effect.void
      : Effect.fail(new Refused({ message: "the token would have expired already" }))
  const made = (row: TokenRow, secret: Redacted.Redacted<string>) => ({
    ...tokenView(row),
    token: Redacted.value(secret)
  })
  return {
    create: Effect.fnUntraced(function* (
      name: string,
      role: Role,
      expiresAtMs: number | null,
      actor: string
    ) {
      const nowMs = yield* Clock.currentTimeMillis
      yield* requireFuture(expiresAtMs, nowMs)
      const secret = yield* makeToken(entropy)
      const more = { actor, expiresAtMs }
      const outcome = yield* orUnavailable(store.addToken(name, role, hashToken(engine, secret), nowMs, more))
      if (outcome === "name_taken") {
        return yield* new Conflict({ code: "name_taken", message: `there is a token named ${name} already` })
      }
      const fresh = { name, role, createdAtMs: nowMs, createdBy: actor, expiresAtMs, lastUsedAtMs: null }
      return made(fresh, secret)
    }),
    rotate: Effect.fnUntraced(function* (name: string, expiresAtMs: number | null, actor: string) {
      const nowMs = yield* Clock.currentTimeMillis
      yield* requireFuture(expiresAtMs, nowMs)
      yield* known(name)
      const secret = yield* makeToken(entropy)
      const hash = hashToken(engine, secret)
      yield* orUnavailable(store.rotateToken(name, hash, expiresAtMs, actor, nowMs))
      return made(yield* known(name), secret)
    }),
    revoke: Effect.fnUntraced(function* (name: string, actor: string) {
      yield* known(name)
      yield* orUnavailable(store.revokeToken(name, actor, yield* Clock.currentTimeMillis))
      return { ok: true } as const
    })
  }
})

/** Who lags behind the newest root. */
const makeLaggards = Effect.gen(function* () {
  const store = yield* FleetStore
  const trust = yield* FleetTrust
  return Effect.fnUntraced(function* (limit: number) {
    const version = trust.current()?.root.version ?? null
    if (version === null) return { root_version: null, count: 0, devices: [] }
    const { count, devices } = yield* orUnavailable(store.laggards(version, limit))
    return { root_version: version, count, devices: devices.map(laggardView) }
  })
})

/** Pages of the audit log. */
const makeAudit = Effect.map(FleetStore, (store) =>
  Effect.fnUntraced(function* ({ action, actor, before, limit: asked, since_ms: sinceMs }: AuditQuery) {
    const limit = pageSize(asked)
    const rows = yield* orUnavailable(store.audit(limit + 1, { action, actor, before, sinceMs }))
    const page = rows.slice(0, limit)
    return {
      entries: page.map((row) => ({
        id: row.id,
        at_ms: row.atMs,
        actor: row.actor,
        action: row.action,
        subject: row.subject
      })),
      next: rows.length > limit ? (page.at(-1)?.id ?? null) : null
    }
  })
)

/** How messages between devices are carried, for the server's status. */
const makeMessaging = ({ actors, messaging = "off" }: ManagementOptions) =>
  Effect.map(Effect.context<CryptoEngine | FleetTrust>(), (services) => {
    if (messaging === "off") return Effect.succeed({ messaging: null, messaging_problem: null })
    const told = (problem: string) => ({ messaging: null, messaging_problem: problem })
    if (messaging === "broken")
      return Effect.succeed(
        told("the server carries no messages between devices, though it should: its log says why")
      )
    return messagingStatusOf(actors).pipe(
      Effect.provideContext(services),
      Effect.map((status) => ({ messaging: status, messaging_problem: null })),
      Effect.orElseSucceed(() => told("broker services do not answer: see postern ps, and the server's log"))
    )
  })

export const ServerHandlers = (options: ManagementOptions) =>
  HttpApiBuilder.group(ManagementApi, "server", (handlers) =>
    Effect.gen(function* () {
      const store = yield* FleetStore
      const identity = yield* Identity
      const trust = yield* FleetTrust
      const registrar = options.actors.registrar
      const retention = yield* RetentionStore
      const tokens = yield* makeTokens
      const laggards = yield* makeLaggards
      const audit = yield* makeAudit
      const messaging = yield* makeMessaging(options)
      return handlers.handleAll({
        status: Effect.fnUntraced(function* () {
          const counts = yield* orUnavailable(store.counts)
          const restored = yield* orUnavailable(retention.restored)
          const root = trust.current()?.root
          return {
            server: identity.id as ServerId,
            software,
            time_ms: yield* Clock.currentTimeMillis,
            started_at_ms: options.startedAtMs,
            root_version: root?.version ?? null,
            root_expires_at_ms: root?.expires_at_ms ?? null,
            ...counts,
            storage: yield* Effect.orElseSucceed(options.actors.retention.ask("Storage"), () => null),
            onion: yield* options.onion ?? Effect.succeed(null),
            ...(yield* messaging),
            restored: restored === null ? null : { at_ms: restored.atMs, backup_at_ms: restored.backupAtMs }
          }
        }),
        actors: () => options.inspect,
        roots: ({ query }) =>
          Effect.map(orUnavailable(store.roots(Math.max(1, query.from), 16)), (roots) => ({ roots })),
        publishRoot: Effect.fnUntraced(function* ({ payload }) {
          const actor = yield* callerName
          yield* orUnavailable(registrar.ask("PublishRoot", { envelope: payload, actor }))
          return { ok: true } as const
        }),
        laggards: ({ query }) => laggards(pageSize(query.limit)),
        audit: ({ query }) => audit(query),
        metrics: () => options.metrics,
        tokens: () => Effect.map(orUnavailable(store.tokens), (rows) => ({ tokens: rows.map(tokenView) })),
        createToken: Effect.fnUntraced(function* ({ payload }) {
          const actor = yield* callerName
          return yield* tokens.create(payload.name, payload.role, payload.expires_at_ms, actor)
        }),
        rotateToken: Effect.fnUntraced(function* ({ params, payload }) {
          const actor = yield* callerName
          return yield* tokens.rotate(params.name, payload.expires_at_ms, actor)
        }),
        revokeToken: Effect.fnUntraced(function* ({ params }) {
          const actor = yield* callerName
          return yield* tokens.revoke(params.name, actor)
        })
      })
    })
  )

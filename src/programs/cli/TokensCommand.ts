/**
 * `postern tokens`: who may ask the server what. A token is shown once, when it is made.
 *
 * @module
 */
import { Clock, Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { ManagementClient } from "../../adapters/operator/ManagementClient.ts"
import { Name } from "../../schemas/Ids.ts"
import type { TokenView } from "../../schemas/ManagementViews.ts"
import { optionalDurationFlag } from "./Flags.ts"
import { out, outJson, say } from "./Screen.ts"
import { Json, withServer } from "./Settings.ts"
import { showAge, table, visible } from "./Text.ts"

const nameArgument = Argument.String("name").pipe(
  Argument.withDescription("What the token is called in the audit log"),
  Argument.withSchema(Name)
)

const expires = optionalDurationFlag("expires", "For how long it counts; for ever where this is not given")

const expiryOf = (given: Option.Option<number>) =>
  Effect.map(Clock.currentTimeMillis, (nowMs) =>
    Option.getOrNull(Option.map(given, (durationMs) => nowMs + durationMs))
  )

const show = (made: TokenView & { readonly token: string }) =>
  Effect.gen(function* () {
    if (yield* Json) return yield* outJson(made)
    yield* say(`The token of ${made.name} (${made.role}), shown this once:`)
    yield* out(`${made.token}\n`)
  })

const list = Command.make(
  "list",
  {},
  Effect.fnUntraced(function* () {
    const client = yield* ManagementClient
    const { tokens } = yield* client.call("list the tokens", (api) => api.server.tokens())
    if (yield* Json) return yield* outJson({ tokens })
    const nowMs = yield* Clock.currentTimeMillis
    const age = (atMs: number | null, none: string) => (atMs === null ? none : showAge(atMs, nowMs))
    const rows = tokens.map((token) => [
      token.name,
      token.role,
      `${showAge(token.created_at_ms, nowMs)} by ${visible(token.created_by)}`,
      age(token.last_used_at_ms, "never"),
      age(token.expires_at_ms, "never")
    ])
    yield* out(table(["NAME", "ROLE", "MADE", "USED", "EXPIRES"], rows))
  }, withServer)
).pipe(
  Command.withDescription("List the tokens; none of them is shown"),
  Command.withExamples([
    { command: "postern tokens list", description: "Who may ask, since when, and until when" }
  ])
)

const create = Command.make(
  "create",
  {
    name: nameArgument,
    role: Flag.Literals("role", ["viewer", "operator", "admin"]).pipe(
      Flag.withDescription("viewer: read. operator: also submit, cancel, accept. admin: also roots, tokens")
    ),
    expires
  },
  Effect.fnUntraced(function* ({ expires, name, role }) {
    const client = yield* ManagementClient
    const payload = { name, role, expires_at_ms: yield* expiryOf(expires) }
    yield* show(yield* client.call("make the token", (api) => api.server.createToken({ payload })))
  }, withServer)
).pipe(
  Command.withDescription("Make a token and print it, once"),
  Command.withExamples([
    { command: "postern tokens create scraper --role viewer --expires 90d", description: "For Prometheus" }
  ])
)

const rotate = Command.make(
  "rotate",
  { name: nameArgument, expires },
  Effect.fnUntraced(function* ({ expires, name }) {
    const client = yield* ManagementClient
    const payload = { expires_at_ms: yield* expiryOf(expires) }
    yield* show(
      yield* client.call("rotate the token", (api) => api.server.rotateToken({ params: { name }, payload }))
    )
  }, withServer)
).pipe(
  Command.withDescription("Put a new token in the place of the old one, which counts no more"),
  Command.withExamples([
    {
      command: "postern tokens rotate scraper",
      description: "Before it expires, or when it got into wrong hands"
    }
  ])
)

const revoke = Command.make(
  "revoke",
  { name: nameArgument },
  Effect.fnUntraced(function* ({ name }) {
    const client = yield* ManagementClient
    yield* client.call("revoke the token", (api) => api.server.revokeToken({ params: { name } }))
    if (yield* Json) yield* outJson({ name, revoked: true })
    else yield* out(`The token ${name} counts no more.\n`)
  }, withServer)
).pipe(
  Command.withDescription("Revoke a token, at once"),
  Command.withExamples([
    { command: "postern tokens revoke scraper", description: "When it is not needed any more" }
  ])
)

export const tokensCommand = Command.make("tokens").pipe(
  Command.withDescription("API tokens of the server: who may ask what (role admin)"),
  Command.withSubcommands([list, create, rotate, revoke])
)

/**
 * How the management API says no. Every refusal is one JSON shape: `_tag`, a `code` for programs, a `message` on what
 * happened to what, and `help` on what to do. Times to wait stand in `Retry-After` too.
 */
import { Effect, Schema } from "effect"
import { Count, TimestampMs } from "./Ids.ts"

/** Filled in where it is made, and where a server did not say it. */
const code = <const C extends string>(value: C) =>
  Schema.Literal(value).pipe(
    Schema.withDecodingDefault(Effect.succeed(value)),
    Schema.withConstructorDefault(Effect.succeed(value))
  )

const help = (text: string) =>
  Schema.String.pipe(
    Schema.withDecodingDefault(Effect.succeed(text)),
    Schema.withConstructorDefault(Effect.succeed(text))
  )

/** The members that all refusals have. */
const words = <const C extends string>(value: C, advice: string) => ({
  code: code(value),
  message: Schema.String,
  help: help(advice)
})

/** The request is not what this path takes: a parameter, the query or the body. */
export class BadRequest extends Schema.TaggedError<BadRequest>()(
  "BadRequest",
  words("bad_request", "Compare the request with the description at /openapi.json."),
  { httpApiStatus: 400 }
) {}

export class Unauthorized extends Schema.TaggedError<Unauthorized>()(
  "Unauthorized",
  words("unauthorized", "Send a token of this server as Authorization: Bearer TOKEN; an admin can make one."),
  { httpApiStatus: 401 }
) {}

export class Forbidden extends Schema.TaggedError<Forbidden>()(
  "Forbidden",
  words("forbidden", "Ask with a token of the role that is named, or have an admin make one."),
  { httpApiStatus: 403 }
) {}

export class NotFound extends Schema.TaggedError<NotFound>()(
  "NotFound",
  words("not_found", "Look for the right id in the lists."),
  { httpApiStatus: 404 }
) {}

/** The request is well-formed but can't be done as things stand; `code` says which rule. */
export class Conflict extends Schema.TaggedError<Conflict>()(
  "Conflict",
  {
    code: Schema.Literals([
      "sequence_taken",
      "id_taken",
      "name_taken",
      "unknown_device",
      "payload_missing",
      "payload_conflict",
      "stale_admission",
      "root_conflict",
      "finished",
      "no_root",
      "in_rollout",
      "rollout_ended",
      "stale_control",
      "not_paused",
      "too_many_rollouts",
      "too_many_controls",
      "root_expired",
      "operator_revoked"
    ]),
    message: Schema.String,
    help: help("Nothing was changed: read the present state, and decide again.")
  },
  { httpApiStatus: 409 }
) {}

/** It was here and is not kept any more. */
export class Gone extends Schema.TaggedError<Gone>()(
  "Gone",
  {
    ...words("gone", "Keep what you need longer than the server does, or raise its retention settings."),
    /** When the server dropped it. */
    pruned_at_ms: TimestampMs,
    /** Its age, or the room that all results may take. */
    why: Schema.Literals(["age", "size"])
  },
  { httpApiStatus: 410 }
) {}

/** The document is malformed, or not signed by those who may. */
export class Refused extends Schema.TaggedError<Refused>()(
  "Refused",
  words("refused", "Nothing was changed: mend the document, and sign it again."),
  { httpApiStatus: 422 }
) {}

/** The token's share of requests is used up for the moment. */
export class TooManyRequests extends Schema.TaggedError<TooManyRequests>()(
  "TooManyRequests",
  {
    ...words("too_many_requests", "Wait for the seconds in Retry-After, and ask less often."),
    retry_after_seconds: Count
  },
  { httpApiStatus: 429 }
) {}

/** The server's store or disk failed, or it is overloaded; nothing was changed. */
export class Unavailable extends Schema.TaggedError<Unavailable>()(
  "Unavailable",
  words("unavailable", "Nothing was changed: try again after the seconds in Retry-After."),
  { httpApiStatus: 503 }
) {}

/** The server's disk has no room; nothing was changed. */
export class StorageFull extends Schema.TaggedError<StorageFull>()(
  "StorageFull",
  words("storage_full", "Make room on the server's disk, or lower its retention settings; then try again."),
  { httpApiStatus: 507 }
) {}

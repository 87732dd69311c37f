/** The server's configuration. Every key has a default that works. */
import { Effect, Schema } from "effect"
import { intBetween } from "./Ids.ts"
import { Limits } from "./Limits.ts"
import { ServerAddress } from "./TrustRoot.ts"

const withDefault = <A>(schema: Schema.Codec<A, A>, value: A) =>
  schema.pipe(Schema.withDecodingDefault(Effect.succeed(value)))

export const ServerConfig = Schema.Struct({
  /** Where the server keeps keys, databases, ciphertext. 0700. */
  state_folder: Schema.String,
  /** Loopback by default: put a proxy or an onion service before it. */
  host: withDefault(Schema.String, "127.0.0.1"),
  /** 0 takes a free port and says which. */
  port: withDefault(intBetween(0, 65_535), 8470),
  /** Origins under which devices reach it, for the identity that goes into the root. Default: the bound address. */
  addresses: Schema.Array(ServerAddress)
    .check(Schema.isMaxLength(Limits.serverAddresses))
    .pipe(Schema.withDecodingDefault(Effect.succeed([]))),
  /** The sleep told to devices that do not hold their polls open. */
  poll_sleep_ms: withDefault(intBetween(Limits.pollSleepMinimumMs, Limits.pollSleepMaximumMs), 60_000),
  /** Requests in work at once; above it devices are told to come later (503, Retry-After). */
  maximum_requests: withDefault(intBetween(1, 1_000_000), 20_000),
  maximum_devices: withDefault(intBetween(1, 1_000_000), 100_000)
})
export type ServerConfig = typeof ServerConfig.Type

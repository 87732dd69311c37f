/**
 * The trust root: who may sign what. A small profile of TUF's root role. Version N+1 is signed by the root thresholds
 * of both N and N+1; expiry is judged on the last root of a chain only.
 */
import { Schema } from "effect"
import {
  intBetween,
  KeyId,
  labelUpTo,
  Recipient,
  RootVersion,
  ServerId,
  SigningKey,
  TimestampMs
} from "./Ids.ts"
import { Limits } from "./Limits.ts"

export const RoleName = Schema.Literals(["root", "operators", "servers", "broker_services"])
export type RoleName = typeof RoleName.Type

export const RootKey = Schema.Struct({
  algorithm: Schema.Literal("ed25519"),
  public_key: SigningKey,
  label: labelUpTo(Limits.labelLength),
  /** Operators have one: packages and results are encrypted to it. Null for keys that only sign. */
  recipient: Schema.NullOr(Recipient)
})

/** A role without keys can sign nothing; one with keys needs a threshold that its keys can reach. */
export const Role = Schema.Struct({
  keys: Schema.Array(KeyId).check(Schema.isMaxLength(Limits.rootKeys), Schema.isUnique()),
  threshold: intBetween(1, Limits.rootKeys)
}).check(
  Schema.makeFilter(
    (role) =>
      role.keys.length === 0 ||
      role.threshold <= role.keys.length ||
      "the threshold is larger than the number of keys"
  )
)

export const ServerAddress = Schema.String.check(
  Schema.isMaxLength(Limits.addressLength),
  Schema.isPattern(/^https?:\/\/[a-z0-9.-]+(:[0-9]{1,5})?$|^https?:\/\/\[[0-9a-f:]+\](:[0-9]{1,5})?$/)
)

export const RootServer = Schema.Struct({
  id: ServerId,
  /** The key of the `servers` role this server signs its statements with. */
  key: KeyId,
  recipient: Recipient,
  /** Origins (scheme, host, port; no path) under which devices reach it, best first. */
  addresses: Schema.Array(ServerAddress).check(
    Schema.isMinLength(1),
    Schema.isMaxLength(Limits.serverAddresses)
  )
})

export type RootServer = typeof RootServer.Type

export const TrustRoot = Schema.Struct({
  type: Schema.Literal("postern/root/v1"),
  version: RootVersion,
  issued_at_ms: TimestampMs,
  expires_at_ms: TimestampMs,
  keys: Schema.Record(KeyId, RootKey).check(Schema.isMaxProperties(Limits.rootKeys)),
  roles: Schema.Struct({ root: Role, operators: Role, servers: Role, broker_services: Role }),
  servers: Schema.Array(RootServer).check(Schema.isMaxLength(Limits.rootServers))
}).check(
  Schema.makeFilter((root) => {
    const known = new Set<string>(Object.keys(root.keys))
    for (const [name, role] of Object.entries(root.roles)) {
      const unknown = role.keys.find((key) => !known.has(key))
      if (unknown !== undefined) return `role ${name} names the key ${unknown}, which the root does not hold`
    }
    if (root.roles.root.keys.length === 0) return "the root role has no key"
    const stray = root.servers.find((server) => !root.roles.servers.keys.includes(server.key))
    if (stray !== undefined) return `server ${stray.id} signs with a key outside the servers role`
    return root.expires_at_ms > root.issued_at_ms || "it expires before it was issued"
  })
)
export type TrustRoot = typeof TrustRoot.Type

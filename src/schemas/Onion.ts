/** Names and keys of Tor's onion services, version 3. */
import { Schema } from "effect"

/** 56 characters of base32 and `.onion`; the last stands for the version. That its checksum is right is for tor to see. */
export const OnionHost = Schema.String.check(
  Schema.isPattern(/^[a-z2-7]{55}d\.onion$/, { expected: "56 characters of base32 and .onion" })
).pipe(Schema.brand("OnionHost"))
export type OnionHost = typeof OnionHost.Type

/**
 * A public x25519 key that a service may know a client by: base32 (RFC 4648), upper case, without padding. The last
 * character holds one bit of the key.
 */
export const OnionClientKey = Schema.String.check(
  Schema.isPattern(/^[A-Z2-7]{51}[AQ]$/, { expected: "an x25519 key as 52 characters of base32" })
).pipe(Schema.brand("OnionClientKey"))
export type OnionClientKey = typeof OnionClientKey.Type

/**
 * Whether an origin (scheme, host, port), or a host alone, is to be found through Tor only. True for whatever ends in
 * `.onion`, good address or not: such a name is never for anybody else to resolve (RFC 7686).
 */
export const isOnionOrigin = (origin: string): boolean => /\.onion\.?(:\d*)?$/i.test(origin)

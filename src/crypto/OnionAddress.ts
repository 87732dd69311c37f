/**
 * The name of an onion service, version 3, and its secret key as tor takes it: Tor's rend-spec-v3, 6 ("Encoding onion
 * addresses") and 1.9. Both follow from an Ed25519 seed, so a service has its address before tor runs.
 *
 * @module
 */
import { sha3_256 } from "@noble/hashes/sha3.js"
import { Redacted } from "effect"
import { OnionHost } from "../schemas/Onion.ts"
import type { OnionServiceName } from "../schemas/OnionStatus.ts"
import { encodeBase32 } from "./Base32.ts"
import { concatBytes, utf8 } from "./Bytes.ts"
import { type Engine, ed25519KeyBytes } from "./Engine.ts"

const version = Uint8Array.of(3)
const checksumBytes = 2
const noSalt = new Uint8Array(0)

/** The host of the service with this 32-byte Ed25519 public key. */
export const onionHost = (publicKey: Uint8Array): OnionHost => {
  const checksum = sha3_256(concatBytes(utf8(".onion checksum"), publicKey, version))
  return OnionHost.make(
    `${encodeBase32(concatBytes(publicKey, checksum.subarray(0, checksumBytes), version))}.onion`
  )
}

/** The 64 bytes that tor keeps of a 32-byte seed: RFC 8032's scalar, clamped, and the prefix. */
const expandedSecret = (engine: Engine, seed: Uint8Array): Uint8Array => {
  const expanded = engine.sha512(seed)
  expanded[0] = (expanded[0] as number) & 248
  expanded[31] = ((expanded[31] as number) & 63) | 64
  return expanded
}

/** Where each service's key is drawn from: never the same twice. */
const serviceInfo = (service: OnionServiceName): Uint8Array => utf8(`postern/onion-service/v1 ${service}`)

/** A service's key: the public half in plain, the secret as tor takes it. */
export interface OnionServiceKey {
  readonly host: OnionHost
  readonly publicKey: Uint8Array
  readonly expanded: Redacted.Redacted<Uint8Array>
}

/**
 * The key of one of a server's services. It follows from the server's signing key, so that the address stays as long as the
 * server's identity does, in a restored backup too, and nothing more must be kept. tor, which holds this key, learns nothing
 * of the one it was drawn from.
 */
export const onionServiceKey = (
  engine: Engine,
  signingSeed: Redacted.Redacted<Uint8Array>,
  service: OnionServiceName
): OnionServiceKey => {
  const seed = engine.hkdfSha256(Redacted.value(signingSeed), noSalt, serviceInfo(service), ed25519KeyBytes)
  const publicKey = engine.ed25519.publicKey(seed)
  return { host: onionHost(publicKey), publicKey, expanded: Redacted.make(expandedSecret(engine, seed)) }
}

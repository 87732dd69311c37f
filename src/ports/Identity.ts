/**
 * The keys of this node. Signing is done here, so that no actor ever holds a private key; unsealing likewise (the
 * package store takes it from the adapter's side).
 */
import type { Effect } from "effect"
import { Context } from "effect"
import type { DsseEnvelope, SignedKind } from "../schemas/Dsse.ts"
import type { Digest, Recipient, SigningKey } from "../schemas/Ids.ts"

/** A key to encrypt to; a higher version replaces a lower one. */
export interface EncryptionKey {
  readonly version: number
  readonly recipient: Recipient
}

export class Identity extends Context.Service<
  Identity,
  {
    /** `dev_…` on a device, `srv_…` on a server. */
    readonly id: string
    readonly signingKey: SigningKey
    /** The first encryption key, which the id is made of. */
    readonly recipient: Recipient
    /** The one to be encrypted to now. */
    readonly encryption: Effect.Effect<EncryptionKey>
    /** Canonical JSON of `document`, signed as `kind`; with the digest of the payload. */
    readonly sign: (
      kind: SignedKind,
      document: unknown
    ) => Effect.Effect<{ readonly envelope: DsseEnvelope; readonly digest: Digest }>
  }
>()("postern/ports/Identity") {}

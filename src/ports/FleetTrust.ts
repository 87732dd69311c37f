/**
 * The root of trust as the server holds it: written by the registrar alone, read by everyone at every request. A plain
 * cell, since a reader needs the newest value and never has to wait for it.
 */
import { Context, type Effect } from "effect"
import type { Digest, KeyId } from "../schemas/Ids.ts"
import type { TrustRoot } from "../schemas/TrustRoot.ts"

/** The newest root, and what the chain before it tells. */
export interface FleetRoot {
  readonly root: TrustRoot
  /** The digest of version 1, which enrolments name. */
  readonly firstDigest: Digest
  /** Keys of operators whom a later root revoked. */
  readonly formerOperators: ReadonlySet<KeyId>
}

export class FleetTrust extends Context.Service<
  FleetTrust,
  {
    /** Null before an operator has published a root. */
    readonly current: () => FleetRoot | null
    readonly set: (root: FleetRoot) => void
    /** Ends when another root is set after this was called. Take it first and look after, so that no change is missed. */
    readonly changed: () => Effect.Effect<void>
  }
>()("postern/ports/FleetTrust") {}

/**
 * The root of trust as the server holds it: written by the registrar alone, read by everyone at every request. A plain
 * cell, since a reader needs the newest value and never has to wait for it.
 */
import { Context } from "effect"
import type { Digest } from "../schemas/Ids.ts"
import type { TrustRoot } from "../schemas/TrustRoot.ts"

/** The newest root, and the digest of version 1, which enrolments name. */
export interface FleetRoot {
  readonly root: TrustRoot
  readonly firstDigest: Digest
}

export class FleetTrust extends Context.Service<
  FleetTrust,
  {
    /** Null before an operator has published a root. */
    readonly current: () => FleetRoot | null
    readonly set: (root: FleetRoot) => void
  }
>()("postern/ports/FleetTrust") {}

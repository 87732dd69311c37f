/** What a device needs to know before it can ask its server: where that is, and how it is to be let in. */
import { Effect, Redacted, Result } from "effect"
import type { TrustOptions } from "../../actors/TrustKeeper.ts"
import { fitsPin, restoreRoot } from "../../actors/TrustState.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { Ledger } from "../../ports/Ledger.ts"
import { type ClientSettings, misconfigured } from "./ClientSettings.ts"

/** How it is to be let in. */
export const trustOptions = ({
  config,
  invitation
}: Pick<ClientSettings, "config" | "invitation">): TrustOptions => ({
  name: config.name,
  invitation:
    invitation === null
      ? null
      : {
          server: invitation.server,
          rootDigest: invitation.root_digest,
          secret: Redacted.make(invitation.secret)
        }
})

/** Where the server is: from the root kept, the invitation, or the configuration. */
export const bootstrapAddresses = (settings: Pick<ClientSettings, "config" | "invitation">) =>
  Effect.gen(function* () {
    const ledger = yield* Ledger
    const engine = yield* CryptoEngine
    const note = yield* ledger.note("roots")
    const held = note === null ? null : restoreRoot(engine, note)
    const known =
      held !== null && Result.isSuccess(held) && fitsPin(held.success, trustOptions(settings).invitation)
        ? (held.success.root.servers.find((server) => server.id === held.success.server)?.addresses ?? [])
        : []
    const addresses = [
      ...known,
      ...(settings.invitation?.addresses ?? []),
      ...(settings.config.server === null ? [] : [settings.config.server])
    ]
    if (addresses.length > 0) return [...new Set(addresses)]
    return yield* misconfigured(
      "no server is known: name it with --server URL, or give an invitation (--invitation TEXT, or $POSTERN_INVITATION)"
    )
  })

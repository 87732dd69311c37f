/**
 * Which key this device shows at its server's onion service. It has one of its own, and in a large fleet one that it shares
 * with its group. Either may be in the server's list at a time: the shared one usually, its own while the server does not know
 * that it holds the present shared one. So it shows the other one whenever one is refused; where both are, it asks over the
 * `enrol` service, whose answer holds the present shared key.
 */
import { Effect, Result, Schema } from "effect"
import { Identity } from "../ports/Identity.ts"
import { Ledger } from "../ports/Ledger.ts"
import { OnionAccess } from "../ports/OnionAccess.ts"
import { SharedOnionKey } from "../schemas/DeviceApi.ts"
import { Count } from "../schemas/Ids.ts"
import { isOnionOrigin, type OnionClientKey, OnionHost } from "../schemas/Onion.ts"
import type { HeldRoot } from "../schemas/protocols/TrustKeeper.ts"

/** As the ledger keeps it: sealed, as it came. */
const KeptKey = Schema.fromJsonString(
  Schema.Struct({
    came: SharedOnionKey,
    /** Which of the device's encryption keys it was sealed to. */
    version: Count
  })
)
type KeptKey = typeof KeptKey.Type

const decodeKept = Schema.decodeUnknownResult(KeptKey)

const restoreKept = (text: string | null): KeptKey | null => {
  const restored = text === null ? null : decodeKept(text)
  return restored !== null && Result.isSuccess(restored) ? restored.success : null
}

const isHost = Schema.is(OnionHost)

/** The onion services at which a server's devices poll. */
export const onionHostsOf = ({ root, server }: HeldRoot): ReadonlyArray<OnionHost> => {
  const addresses = root.servers.find(({ id }) => id === server)?.addresses ?? []
  return addresses
    .filter(isOnionOrigin)
    .map((address) => new URL(address).hostname)
    .filter(isHost)
}

/** Counts failures in a row: those that were refusals, and those that may have been. */
const makeCount = () => {
  let refusals = 0
  let doubts = 0
  return {
    /** Gives whether it was not the first. */
    refused: (): boolean => {
      doubts = 0
      return ++refusals > 1
    },
    /** Gives whether it is to be taken for a refusal. */
    doubted: (): boolean => ++doubts > 1,
    over: (): void => {
      refusals = 0
      doubts = 0
    }
  }
}

export const makeOnionStanding = Effect.gen(function* () {
  const ledger = yield* Ledger
  const identity = yield* Identity
  const access = yield* OnionAccess
  let kept = restoreKept(yield* ledger.note("onion_shared"))
  let showsShared = kept !== null
  let root: HeldRoot | null = null
  const count = makeCount()

  /** Makes tor show the key that is to be shown. */
  const show = Effect.suspend(() => {
    if (root === null) return Effect.void
    const shared = showsShared && kept !== null ? { came: kept.came, server: root.server } : null
    return access.use(onionHostsOf(root), shared)
  })
  /** Shows it; a shared one that is no good is forgotten, so that the server sends it again. */
  const showOrForget = Effect.catch(show, (error) => {
    if (error.isFlawed) kept = null
    return Effect.andThen(
      Effect.logWarning(error.message),
      error.isFlawed ? Effect.ignore(show) : Effect.void
    )
  })
  const refused = Effect.suspend(() => {
    const isAll = count.refused() || kept === null
    if (kept !== null) showsShared = !showsShared
    return Effect.as(Effect.andThen(showOrForget, access.refresh), isAll)
  })
  return {
    /** The shared key that this device holds and can open still: what the server is told. */
    held: Effect.map(identity.encryption, ({ version }): OnionClientKey | null =>
      kept !== null && kept.version === version ? kept.came.key : null
    ),
    /** The root in force, which names the services. */
    follow: (held: HeldRoot) =>
      Effect.suspend(() => {
        root = held
        return kept === null ? Effect.void : showOrForget
      }),
    /** Takes a shared key: proved first, then written, then shown. What is no good changes nothing. */
    take: Effect.fnUntraced(function* (came: SharedOnionKey) {
      if (root === null) return
      const { version } = yield* identity.encryption
      if (kept?.came.key === came.key && kept.version === version) return
      const before = { kept, showsShared }
      const next: KeptKey = { came, version }
      kept = next
      showsShared = true
      const shown = yield* Effect.result(
        Effect.andThen(show, ledger.setNote("onion_shared", JSON.stringify(next)))
      )
      if (Result.isSuccess(shown))
        return yield* Effect.logInfo("the group's key to the onion service is here")
      kept = before.kept
      showsShared = before.showsShared
      yield* Effect.logWarning(shown.failure.message)
      yield* Effect.ignore(show)
    }),
    /** The service does not know the key that was shown. Gives whether it knows none of ours. */
    refused,
    /**
     * The service was not reached, and tor does not say why. Twice in a row it counts as a refusal: through such a tor a key
     * that is not in the list any more shows in nothing else.
     */
    unexplained: Effect.suspend(() => (count.doubted() ? refused : Effect.succeed(false))),
    /** The service let us in. */
    admitted: count.over
  }
})

export type OnionStanding = Effect.Success<typeof makeOnionStanding>

/** Broker services at a glance, asked of the actors that know. */
import { Effect } from "effect"
import type { Engine } from "../../crypto/Engine.ts"
import { keyIdOf, signingKeyBytes } from "../../crypto/Trust.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { FleetTrust } from "../../ports/FleetTrust.ts"
import type { SigningKey } from "../../schemas/Ids.ts"
import type { BrokerView } from "../../schemas/MessagingViews.ts"
import type { TrustRoot } from "../../schemas/TrustRoot.ts"
import type { ServerActors } from "./ServerActors.ts"

/** A broker that hangs is as good as none to whoever asks. */
const brokerTimeoutMs = 2_000

/** Whether agents believe a key of broker services. */
const isNamed = (engine: Engine, root: TrustRoot | undefined, key: SigningKey): boolean => {
  const bytes = signingKeyBytes(key)
  return bytes !== undefined && root?.roles.broker_services.keys.includes(keyIdOf(engine, bytes)) === true
}

/** Asks anew each time. Fails where the directory does not answer. */
export const messagingStatusOf = ({ brokerKeeper, directory }: ServerActors) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const trust = yield* FleetTrust
    const overview = yield* directory.ask("Overview")
    const broker = yield* brokerKeeper.ask("State", undefined, { timeoutMs: brokerTimeoutMs }).pipe(
      Effect.map(({ addresses, connected }): BrokerView => ({ state: "open", addresses, connected })),
      Effect.orElseSucceed((): BrokerView => ({ state: "down", addresses: [], connected: null }))
    )
    return { ...overview, in_root: isNamed(engine, trust.current()?.root, overview.signing_key), broker }
  })

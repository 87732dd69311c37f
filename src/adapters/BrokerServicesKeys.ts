/**
 * The keys of a server's broker services, apart from its own: who has the one cannot pose as the other.
 *
 * @module
 */
import { Context, Effect, Layer } from "effect"
import type { CryptoEngine } from "../ports/CryptoEngine.ts"
import type { Entropy } from "../ports/Entropy.ts"
import { Identity } from "../ports/Identity.ts"
import type { BrokerServicesKey } from "../schemas/Enrolment.ts"
import type { ServerId } from "../schemas/Ids.ts"
import { type KeyFileError, type KeyRotation, type NodeKeyRing, openNodeKeys } from "./NodeKeys.ts"

export class BrokerServicesKeys extends Context.Service<
  BrokerServicesKeys,
  { readonly keys: NodeKeyRing; readonly rotation: KeyRotation["Service"] }
>()("postern/adapters/BrokerServicesKeys") {}

/** The keys in a server's state folder, made where there are none yet. */
export const BrokerServicesKeysFile = (
  stateFolder: string
): Layer.Layer<BrokerServicesKeys, KeyFileError, Entropy | CryptoEngine> =>
  Layer.effect(BrokerServicesKeys, openNodeKeys({ stateFolder, kind: "broker-services" }))

/** The server's word for them, signed with its own key. */
export const brokerServicesWord = Effect.gen(function* () {
  const identity = yield* Identity
  const { keys } = yield* BrokerServicesKeys
  const document: BrokerServicesKey = {
    type: "postern/broker-services/v1",
    server: identity.id as ServerId,
    signing_key: keys.signingKey
  }
  return (yield* identity.sign("broker_services", document)).envelope
})

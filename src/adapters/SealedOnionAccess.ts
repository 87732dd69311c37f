/**
 * The port `OnionAccess`: opens shared keys with the keys of this node, and hands them to the way through Tor.
 *
 * @module
 */
import { Effect, Layer, Result } from "effect"
import { openSharedKey } from "../crypto/OnionKeys.ts"
import { CryptoEngine } from "../ports/CryptoEngine.ts"
import { OnionAccess, OnionAccessError } from "../ports/OnionAccess.ts"
import { Tunnel } from "../ports/Tunnel.ts"
import type { DeviceId } from "../schemas/Ids.ts"
import { NodeKeys } from "./NodeKeys.ts"

export const SealedOnionAccess: Layer.Layer<OnionAccess, never, NodeKeys | CryptoEngine | Tunnel> =
  Layer.effect(
    OnionAccess,
    Effect.gen(function* () {
      const keys = yield* NodeKeys
      const engine = yield* CryptoEngine
      const tunnel = yield* Tunnel
      return {
        use: Effect.fnUntraced(function* (hosts, shared) {
          const device = keys.id as DeviceId
          const opened =
            shared === null
              ? Result.succeed(null)
              : openSharedKey(engine, keys.ageIdentities, shared.came, { device, server: shared.server })
          if (Result.isFailure(opened))
            return yield* new OnionAccessError({ reason: opened.failure, isFlawed: true })
          for (const host of hosts)
            yield* Effect.mapError(
              tunnel.authorise(host, opened.success),
              (error) => new OnionAccessError({ reason: error.message, isFlawed: false })
            )
        }),
        refresh: Effect.catch(tunnel.renew, (error) =>
          Effect.logWarning(`tor goes on with what it remembers of the onion service: ${error.message}`)
        )
      }
    })
  )

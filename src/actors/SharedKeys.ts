/** How a device gets the key to the onion service that it shares with its group. */
import { Effect, Result } from "effect"
import type { Engine } from "../crypto/Engine.ts"
import { verifyDeviceStatement } from "../crypto/Trust.ts"
import { CryptoEngine } from "../ports/CryptoEngine.ts"
import type { DeviceRow } from "../ports/FleetStore.ts"
import { GroupKeys } from "../ports/GroupKeys.ts"
import type { SharedOnionKey } from "../schemas/DeviceApi.ts"
import type { Recipient } from "../schemas/Ids.ts"

/** The key to encrypt to: the one of the device's newest word, or the one it enrolled with. */
const recipientOf = (engine: Engine, { device, request, statement }: DeviceRow): Recipient => {
  const opened =
    statement === null ? null : verifyDeviceStatement(engine, device, request.signing_key, statement)
  return opened !== null && Result.isSuccess(opened) ? opened.success.document.recipient : request.recipient
}

/** The member of an answer that hands the group's key to an accepted device; nothing where it shares none. */
export const makeSharing = Effect.gen(function* () {
  const engine = yield* CryptoEngine
  const groups = yield* GroupKeys
  return Effect.fnUntraced(function* (
    row: DeviceRow | null
  ): Effect.fn.Return<{ readonly onion_shared?: SharedOnionKey }> {
    if (row === null || row.status !== "accepted" || row.onionShared === null) return {}
    const { key, salt } = row.onionShared
    const sealed = yield* groups.seal(salt, row.device, recipientOf(engine, row))
    return sealed === null ? {} : { onion_shared: { key, sealed } }
  })
})

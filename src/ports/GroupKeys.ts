/** The server's keys to its onion service that groups of devices share. The secrets stay on the adapter's side. */
import { Context, type Effect } from "effect"
import type { DeviceId, Recipient } from "../schemas/Ids.ts"
import type { OnionClientKey } from "../schemas/Onion.ts"

export class GroupKeys extends Context.Service<
  GroupKeys,
  {
    /** The public half of the key that follows from a salt. */
    readonly publicKey: (salt: string) => OnionClientKey
    /** The secret half, sealed to a device: an age file in base64. Null where the recipient is no good key. */
    readonly seal: (salt: string, device: DeviceId, recipient: Recipient) => Effect.Effect<string | null>
  }
>()("postern/ports/GroupKeys") {}

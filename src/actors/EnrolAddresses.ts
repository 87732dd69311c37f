/**
 * Where newcomers reach the server, kept beside the root: an accepted device whose key the onion service does not know any
 * more gets the present one there, long after its invitation is gone.
 */
import { Effect, Result, Schema } from "effect"
import { Ledger } from "../ports/Ledger.ts"
import type { ServerIdentity } from "../schemas/Enrolment.ts"
import { ServerAddress } from "../schemas/TrustRoot.ts"

const Kept = Schema.fromJsonString(Schema.Array(ServerAddress))
const decodeKept = Schema.decodeUnknownResult(Kept)

/** Keeps what the server says of itself. Without it the device only has one way less, so a failure is no obstacle. */
export const keepEnrolAddresses = ({ enrol_addresses: addresses = [] }: ServerIdentity) =>
  Effect.gen(function* () {
    const ledger = yield* Ledger
    if (addresses.length > 0) yield* ledger.setNote("enrol_addresses", JSON.stringify(addresses))
  }).pipe(
    Effect.catch((error) => Effect.logWarning(`the address for newcomers is not kept: ${error.message}`))
  )

/** What was kept; nothing where nothing good was. */
export const keptEnrolAddresses = Effect.gen(function* () {
  const ledger = yield* Ledger
  const text = yield* ledger.note("enrol_addresses")
  const decoded = text === null ? null : decodeKept(text)
  return decoded !== null && Result.isSuccess(decoded) ? decoded.success : []
})

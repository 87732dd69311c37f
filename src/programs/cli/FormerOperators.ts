/**
 * The word of an operator whose key is revoked. It proves nothing by itself, since whoever stole the key could have signed
 * it too; a person who knows that the key was only lost may take it all the same.
 *
 * @module
 */
import { Effect, Result } from "effect"
import { Flag } from "effect/cli"
import { verifyPastAdmission } from "../../adapters/operator/TrustStore.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import type { EnrolmentRequest } from "../../schemas/Enrolment.ts"
import type { DeviceView } from "../../schemas/ManagementApi.ts"
import { failure } from "./Failure.ts"
import { requireRoot } from "./Settings.ts"

/** `--former-operator`. */
export const formerOperatorFlag = Flag.Boolean("former-operator").pipe(
  Flag.withDescription(
    "Take the acceptance by an operator who was revoked since as proof: only if their key was lost, not stolen"
  ),
  Flag.withDefault(false),
  Flag.withoutNegation
)

/** The name a former operator accepted the device under, of the keys it asks with. Fails where none did. */
export const acceptedByFormer = (view: DeviceView, request: EnrolmentRequest) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const verified = verifyPastAdmission(engine, yield* requireRoot, view.admission)
    if (Result.isSuccess(verified)) {
      const { decision, device, name, signing_key } = verified.success.document
      if (decision === "accept" && device === request.device && signing_key === request.signing_key)
        return name
    }
    return yield* failure(
      `No operator of an earlier trust root of yours accepted ${request.device}. Leave --former-operator away and compare its claim code`
    )
  })

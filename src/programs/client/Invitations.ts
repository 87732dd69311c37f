/** The invitation as `postern invite` prints it: `postern-invite-v1.` and base64url of its JSON. */
import { Result, Schema } from "effect"
import { decodeBase64Url } from "../../crypto/Base64.ts"
import { parseStrict } from "../../crypto/CanonicalJson.ts"
import { Invitation } from "../../schemas/Enrolment.ts"

const prefix = "postern-invite-v1."
const decode = Schema.decodeUnknownResult(Invitation, { onExcessProperty: "error" })

/** Reads an invitation, or says what is wrong with it without quoting it: it holds a secret. */
export const readInvitation = (text: string): Result.Result<Invitation, string> => {
  const trimmed = text.trim()
  if (!trimmed.startsWith(prefix)) return Result.fail(`the invitation does not begin with ${prefix}`)
  const bytes = decodeBase64Url(trimmed.slice(prefix.length))
  if (bytes === undefined)
    return Result.fail("the invitation is cut short or was altered: copy it again, whole")
  const json = parseStrict(bytes)
  const invitation = Result.isSuccess(json) ? decode(json.success) : Result.fail(undefined)
  return Result.isSuccess(invitation)
    ? Result.succeed(invitation.success)
    : Result.fail("the invitation is of another version, or was altered: ask for a new one")
}

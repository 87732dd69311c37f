/**
 * The public half of a person's key, as it is handed to whoever makes the next trust root. Signed by the key itself, so
 * that comparing the key's id proves all of it, the recipient for encryption too.
 */
import { Schema } from "effect"
import { labelUpTo, Recipient, SigningKey } from "./Ids.ts"
import { Limits } from "./Limits.ts"

export const KeyCard = Schema.Struct({
  type: Schema.Literal("postern/key/v1"),
  /** What the key is called in the root. */
  label: labelUpTo(Limits.labelLength).check(Schema.isMinLength(1)),
  public_key: SigningKey,
  /** Null for a key that only signs roots. */
  recipient: Schema.NullOr(Recipient)
})
export type KeyCard = typeof KeyCard.Type

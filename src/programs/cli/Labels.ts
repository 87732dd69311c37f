/**
 * What an operator's key is called where nobody says.
 *
 * @module
 */
import { hostname, userInfo } from "node:os"
import { Limits } from "../../schemas/Limits.ts"

/** A user without an entry in the system's list (as in many containers) has no name. */
const userName = (): string => {
  try {
    return userInfo().username
  } catch {
    return "operator"
  }
}

export const defaultLabel = (): string => `${userName()}@${hostname()}`.slice(0, Limits.labelLength)

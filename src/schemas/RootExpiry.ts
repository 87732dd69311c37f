/** How near its end a trust root is, and what to say about it: the same words in the CLI, the server's log and a device's health. */
import { DateTime } from "effect"

const dayMs = 86_400_000

/** From the gravest to the mildest; `days` before its end a level begins. */
const levels = [
  {
    level: "expired",
    days: 0,
    text: "has EXPIRED: devices begin no new work until a newer one is published (postern keys renew)"
  },
  { level: "week", days: 7, text: "expires within a week: make it last longer now (postern keys renew)" },
  { level: "month", days: 30, text: "expires within a month: make it last longer soon (postern keys renew)" },
  { level: "quarter", days: 90, text: "expires within three months" }
] as const

export type ExpiryLevel = (typeof levels)[number]["level"]

/** What is to be said about a root's end: the gravest level that holds, and its sentence. Undefined while it is far. */
export const expiryWarning = (
  root: { readonly version: number; readonly expires_at_ms: number },
  nowMs: number
): { readonly level: ExpiryLevel; readonly text: string } | undefined => {
  const leftMs = root.expires_at_ms - nowMs
  const found = levels.find(({ days }) => leftMs <= days * dayMs)
  if (found === undefined) return undefined
  const until = DateTime.formatIso(DateTime.makeUnsafe(root.expires_at_ms)).slice(0, 16).replace("T", " ")
  return {
    level: found.level,
    text: `The trust root (version ${root.version}, until ${until} UTC) ${found.text}.`
  }
}

/**
 * How a check says what it found. A check never fails: what it could not look at is a finding too.
 *
 * @module
 */
import { Cause, Effect } from "effect"
import type { Finding } from "../../schemas/Finding.ts"
import { errorText } from "../files/AtomicFile.ts"

/** Text of the machine as a finding may hold it: printable, on one line, short. */
const plain = (text: string, maximum: number): string => {
  const line = text
    .replace(/[\s\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]+/gu, " ")
    .trim()
    .toWellFormed()
  return line.length <= maximum ? line : `${line.slice(0, maximum - 1).toWellFormed()}…`
}

const make = (id: string, what: string, state: Finding["state"], reason: string, mend: string): Finding => ({
  id,
  state,
  what: plain(what, 200),
  reason: plain(reason, 500),
  mend: plain(mend, 500)
})

/** The ways one requirement or defence can turn out. */
export const requirement = (id: string, what: string) => ({
  ok: (reason: string) => make(id, what, "ok", reason, ""),
  degraded: (reason: string, mend: string) => make(id, what, "degraded", reason, mend),
  failed: (reason: string, mend: string) => make(id, what, "failed", reason, mend)
})

const usualPatienceMs = 20_000

/** A group of checks that ends in time and never fails. */
export const checkGroup = <R>(
  id: string,
  what: string,
  work: Effect.Effect<ReadonlyArray<Finding>, unknown, R>,
  patienceMs = usualPatienceMs
): Effect.Effect<ReadonlyArray<Finding>, never, R> => {
  const blind = (reason: string) => [
    requirement(id, what).degraded(`it could not be looked at: ${reason}`, "")
  ]
  return work.pipe(
    Effect.timeoutOrElse({
      duration: patienceMs,
      orElse: () => Effect.succeed(blind(`no answer within ${patienceMs} ms`))
    }),
    Effect.catchCause((cause) => Effect.succeed(blind(errorText(Cause.squash(cause)))))
  )
}

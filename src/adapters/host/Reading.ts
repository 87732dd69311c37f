/**
 * Reading what Linux tells in small files: short texts, whole numbers, and null for all that is not there. A sensor that
 * hangs costs its own figure only.
 *
 * @module
 */
import { readFile } from "node:fs/promises"
import { Effect } from "effect"

/** A sensor that hangs must not hold up the report. */
export const readingMs = 2_000

/** Text that a report may hold: printable and short. */
export const label = (text: string, maximum: number): string =>
  text
    .replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, "?")
    .slice(0, maximum)
    .toWellFormed()

/** A whole number that a report may hold. */
export const whole = (value: number): number | null =>
  Number.isSafeInteger(Math.round(value)) && value >= 0 ? Math.round(value) : null

/** The work's result, or null where it fails or takes too long. */
export const orNull = <A>(work: () => Promise<A | null>): Effect.Effect<A | null> =>
  Effect.tryPromise(work).pipe(
    Effect.timeoutOption(readingMs),
    Effect.map((found) => (found._tag === "Some" ? found.value : null)),
    Effect.orElseSucceed(() => null)
  )

/** A file's first `maximum` characters without what ends them; null where there is none or it is empty. */
export const textOf = async (path: string, maximum: number): Promise<string | null> => {
  const text = await readFile(path, "utf8").then(
    (content) => content.replace(/[\0\s]+$/, "").trim(),
    () => ""
  )
  return text === "" ? null : label(text, maximum)
}

/** A file that holds one number. */
export const numberOf = async (path: string): Promise<number | null> => {
  const text = await textOf(path, 32)
  return text !== null && /^[0-9]+$/.test(text) ? whole(Number(text)) : null
}

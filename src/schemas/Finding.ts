/**
 * What a look at one requirement or defence found: made by the checks at start, by `postern doctor`, and shown to people
 * in one list. Text only; who acts on it goes by `id` and `state`.
 */
import { Schema } from "effect"
import { labelUpTo } from "./Ids.ts"

/**
 * - `ok`: it is there and works
 * - `degraded`: the program runs without it, and refuses only the work that needs it
 * - `failed`: the program cannot run, or not reach its server: exit 78
 */
export const FindingState = Schema.Literals(["ok", "degraded", "failed"])
export type FindingState = typeof FindingState.Type

export const Finding = Schema.Struct({
  /** Names the requirement for machines: `jail.bwrap`, `state.folder`, … */
  id: Schema.String.check(Schema.isPattern(/^[a-z][a-z0-9_.-]{0,63}$/)),
  state: FindingState,
  /** What is needed and what for: `bubblewrap, the jail that work runs in`. */
  what: labelUpTo(200),
  /** What was found: a version, or what is wrong. */
  reason: labelUpTo(500),
  /** What to do: best a command. Empty where nothing is to be done. */
  mend: labelUpTo(500)
})
export type Finding = typeof Finding.Type

/** The gravest state of all; `ok` where there is none. */
export const gravest = (findings: ReadonlyArray<Finding>): FindingState =>
  findings.some(({ state }) => state === "failed")
    ? "failed"
    : findings.some(({ state }) => state === "degraded")
      ? "degraded"
      : "ok"

/** Why there is no tor to be had. */
import { Schema } from "effect"

/**
 * - `missing`: there is no such program
 * - `misconfigured`: tor does not take its configuration; the reason has its own words
 * - `unreachable`: the tor that runs already is not there, or does not let this program in
 * - `failed`: it ended, hangs, or does not do what it was told
 */
export class TorError extends Schema.TaggedError<TorError>()("TorError", {
  code: Schema.Literals(["missing", "misconfigured", "unreachable", "failed"]),
  reason: Schema.String,
  /** What to do about it. */
  mend: Schema.String
}) {
  override get message(): string {
    return this.mend === "" ? this.reason : `${this.reason}: ${this.mend}`
  }
}

/** One line about why something failed, for logs and inspection. */
import { Cause } from "effect"

const longest = 300

/** The first line of the squashed cause, cut to a bounded length. */
export const describeCause = (cause: Cause.Cause<unknown>): string => {
  if (Cause.hasInterruptsOnly(cause)) {
    return "it interrupted itself"
  }
  const problem = Cause.squash(cause)
  const text =
    problem instanceof Error
      ? `${problem.name}: ${problem.message}`
      : typeof problem === "string"
        ? problem
        : describeOther(problem)
  const line = text.split("\n", 1)[0] ?? ""
  return line.length > longest ? `${line.slice(0, longest)}...` : line
}

const describeOther = (problem: unknown): string => {
  try {
    return JSON.stringify(problem) ?? String(problem)
  } catch {
    return "an unprintable value"
  }
}

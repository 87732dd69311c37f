// What a person sees of the set-up: one line per step, with the time it took.

const PREFIX = "·"

/** Prints one plain line to stderr, so that the task's own output on stdout stays clean. */
export const say = (text) => process.stderr.write(`${PREFIX} ${text}\n`)

/** An expected failure: `main` prints its message without a stack and exits with its code. */
export class StepFailed extends Error {
  constructor(message, exitCode = 1) {
    super(message)
    this.exitCode = exitCode
  }
}

const seconds = (sinceMs) => `${((performance.now() - sinceMs) / 1000).toFixed(1)} s`

/**
 * Runs one step and prints `· what … 1.2 s`. A terminal sees the beginning of the line at once; elsewhere the
 * line appears when the step has ended, so that a log has one line per step.
 */
export const step = async (what, work) => {
  const started = performance.now()
  const live = process.stderr.isTTY === true
  if (live) process.stderr.write(`${PREFIX} ${what} …`)
  try {
    const note = await work()
    const tail = typeof note === "string" ? ` (${note})` : ""
    process.stderr.write(`${live ? `\r` : ""}${PREFIX} ${what} … ${seconds(started)}${tail}\n`)
  } catch (error) {
    process.stderr.write(`${live ? `\r` : ""}${PREFIX} ${what} … failed after ${seconds(started)}\n`)
    throw error
  }
}

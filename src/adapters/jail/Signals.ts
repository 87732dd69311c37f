/** Names of signals behind the exit codes of shells and of bubblewrap. */
import { constants } from "node:os"

const names = new Map(
  Object.entries(constants.signals).map(([name, number]) => [number as number, name] as const)
)
// Two names share a number on Linux; these are the ones in the manual's table.
for (const [name, number] of [
  ["SIGABRT", 6],
  ["SIGIO", 29]
] as const)
  names.set(number, name)

/** The signal that a code of 128 + n tells of, or null where the code is a plain one. Real-time signals count from 34. */
export const signalOfExitCode = (code: number): string | null => {
  const number = code - 128
  if (number < 1 || number > 64) return null
  return names.get(number) ?? (number >= 34 ? `SIGRT${number - 34}` : `SIG${number}`)
}

/**
 * Help for people whose configuration is wrong: where a key stands in a TOML file, and which key was probably meant.
 *
 * @module
 */

/** How many letters must be put in, taken out, changed, or swapped with their neighbour. */
const steps = (left: string, right: string): number => {
  const rows = [Array.from({ length: right.length + 1 }, (_, index) => index)]
  const at = (row: number, column: number): number => rows[row]?.[column] ?? Number.POSITIVE_INFINITY
  for (let row = 1; row <= left.length; row++) {
    const next = [row]
    rows.push(next)
    for (let column = 1; column <= right.length; column++) {
      const isSame = left[row - 1] === right[column - 1]
      const isSwapped = left[row - 1] === right[column - 2] && left[row - 2] === right[column - 1]
      next.push(
        Math.min(
          at(row - 1, column) + 1,
          at(row, column - 1) + 1,
          at(row - 1, column - 1) + (isSame ? 0 : 1),
          isSwapped ? at(row - 2, column - 2) + 1 : Number.POSITIVE_INFINITY
        )
      )
    }
  }
  return at(left.length, right.length)
}

/** The name nearest to what was typed, where it is near enough to be a slip: one letter in four. */
export const nearest = (typed: string, names: ReadonlyArray<string>): string | undefined => {
  // A text far longer than any name is no slip, and comparing it would take long.
  if (typed.length > 100) return undefined
  const plain = typed.toLowerCase().replaceAll("-", "_")
  const found = names
    .map((name) => [steps(plain, name.toLowerCase()), name] as const)
    .filter(([count, name]) => count <= Math.max(1, Math.floor(name.length / 4)))
    .sort(([left], [right]) => left - right)
  return found[0]?.[1]
}

const bareParts = (text: string): ReadonlyArray<string> =>
  text.split(".").map((part) => part.trim().replace(/^(["'])(.*)\1$/, "$2"))

const startsWith = (path: ReadonlyArray<string>, prefix: ReadonlyArray<string>): boolean =>
  prefix.length <= path.length && prefix.every((part, index) => part === path[index])

/**
 * The line, from 1, on which a key is set: its own, else that of the table around it. Undefined where neither is found.
 * It reads lines, not TOML, so a text over several lines can mislead it; it is for messages only.
 */
export const lineOf = (text: string, path: ReadonlyArray<string>): number | undefined => {
  let table: ReadonlyArray<string> = []
  let best: { readonly length: number; readonly line: number } | undefined
  text.split("\n").forEach((content, index) => {
    const header = /^\s*\[+([^\]]+)\]+/.exec(content)?.[1]
    if (header !== undefined) table = bareParts(header)
    const name = header === undefined ? /^\s*([^#=[\]]+?)\s*=/.exec(content)?.[1] : undefined
    if (header === undefined && name === undefined) return
    const here = name === undefined ? table : [...table, ...bareParts(name)]
    if (startsWith(path, here) && here.length > (best?.length ?? 0))
      best = { length: here.length, line: index + 1 }
  })
  return best?.line
}

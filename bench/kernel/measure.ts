/**
 * Measuring side by side: every contender runs in the same process, in turns, and the median of its rounds counts.
 */

/** One figure of a bench, with the same measured on its peers; `ratio` is ours by theirs. */
export interface Result {
  readonly name: string
  readonly value: number
  readonly unit: string
  readonly peers: ReadonlyArray<{ readonly name: string; readonly value: number; readonly ratio: number }>
  readonly aim?: string
}

/** What every bench exports. */
export type Bench = (options: { readonly short: boolean }) => Promise<Array<Result>>

/** Does `count` operations and returns how long they took, in milliseconds. */
export type Contender = (count: number) => Promise<number>

/** The middle value. */
export const median = (values: ReadonlyArray<number>): number => {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] as number
}

/** Milliseconds an async function takes. */
export const timed = async (work: () => Promise<unknown>): Promise<number> => {
  const before = performance.now()
  await work()
  return performance.now() - before
}

/** Operations per second of each contender: two warm-up rounds, then the median of `rounds` interleaved ones. */
export const race = async (
  contenders: Readonly<Record<string, Contender>>,
  options: { readonly count: number; readonly rounds: number }
): Promise<Record<string, number>> => {
  const rates: Record<string, Array<number>> = {}
  for (let round = -2; round < options.rounds; round++) {
    for (const [name, contender] of Object.entries(contenders)) {
      const ms = await contender(options.count)
      if (round >= 0) {
        rates[name] ??= []
        rates[name].push((options.count / ms) * 1_000)
      }
    }
  }
  return Object.fromEntries(Object.entries(rates).map(([name, values]) => [name, median(values)]))
}

/** Our figure beside the peers' out of the rates of one race. */
export const compare = (
  name: string,
  unit: string,
  rates: Readonly<Record<string, number>>,
  aim: string
): Result => {
  const value = rates["kernel"] as number
  const peers = Object.entries(rates)
    .filter(([peer]) => peer !== "kernel")
    .map(([peer, theirs]) => ({ name: peer, value: theirs, ratio: value / theirs }))
  return { name, value, unit, peers, aim }
}

/** Prints results when a bench is run by itself. */
export const print = (results: ReadonlyArray<Result>): void => {
  const figure = (value: number): string => Math.round(value).toLocaleString("en")
  for (const { name, value, unit, peers, aim } of results) {
    console.log(`${name}: ${figure(value)} ${unit}${aim === undefined ? "" : `   (aim: ${aim})`}`)
    for (const peer of peers) {
      console.log(`  ${peer.name}: ${figure(peer.value)} ${unit}, ratio ${peer.ratio.toFixed(2)}`)
    }
  }
}

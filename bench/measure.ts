/**
 * What a bench gives, and measuring side by side: every contender runs in the same process, in turns, and the median of
 * its rounds counts.
 */

/** What a ratio, ours by theirs, should be. */
export type Aim = { readonly atLeast: number } | { readonly atMost: number }

/** The same figure of somebody else, measured in the same run. */
export interface Peer {
  readonly name: string
  /** In the unit of the result. */
  readonly value: number
  /** Ours divided by theirs. */
  readonly ratio: number
  readonly aim?: Aim
}

/** A figure of ours beside those of its peers. */
export interface Result {
  readonly name: string
  readonly value: number
  readonly unit: string
  /** Which figure is the better one: of rates the higher, of times and sizes the lower. */
  readonly better: "higher" | "lower"
  readonly peers: ReadonlyArray<Peer>
  /** Where the figure goes: its parts, in the same unit. Medians of each part, so they need not add up exactly. */
  readonly parts?: ReadonlyArray<{ readonly name: string; readonly value: number }>
}

/** A bench that cannot run on this machine says why. In continuous integration that is a failure. */
export interface Skipped {
  readonly skipped: string
}

/** What a bench module exports as `run`. `short` asks for a run of a few seconds. */
export type Bench = (options: { readonly short: boolean }) => Promise<ReadonlyArray<Result> | Skipped>

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

/** Medians in milliseconds of single steps, taken in turns: `warmUp` rounds, then `rounds` that count. */
export const takeTurns = async (
  contenders: Readonly<Record<string, () => Promise<unknown>>>,
  options: { readonly warmUp: number; readonly rounds: number }
): Promise<Record<string, number>> => {
  const times: Record<string, Array<number>> = {}
  for (let round = -options.warmUp; round < options.rounds; round++) {
    for (const [name, contender] of Object.entries(contenders)) {
      const ms = await timed(contender)
      times[name] ??= []
      if (round >= 0) times[name].push(ms)
    }
  }
  return Object.fromEntries(Object.entries(times).map(([name, values]) => [name, median(values)]))
}

/** The figure named `ours` out of one race, beside all others. */
export const compare = (
  about: Pick<Result, "name" | "unit" | "better" | "parts">,
  figures: Readonly<Record<string, number>>,
  ours: string,
  aims: Readonly<Record<string, Aim>> = {}
): Result => {
  const value = figures[ours] as number
  const peers = Object.entries(figures)
    .filter(([name]) => name !== ours)
    .map(([name, theirs]): Peer => {
      const aim = aims[name]
      return { name, value: theirs, ratio: value / theirs, ...(aim === undefined ? {} : { aim }) }
    })
  return { ...about, value, peers }
}

/** Chance from a seed: the same row of numbers in every run. */

export interface Chance {
  /** In [0, 1). */
  readonly next: () => number
  /** A whole number from `minimum` to `maximum`. */
  readonly between: (minimum: number, maximum: number) => number
  readonly happens: (probability: number) => boolean
  readonly pick: <A>(list: readonly [A, ...Array<A>]) => A
}

/** A small generator (mulberry32's shape): 32 bits of state are enough for a day's weather. */
export const chanceOf = (seed: number): Chance => {
  let state = (seed * 0x9e3779b1) >>> 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const between = (minimum: number, maximum: number) => minimum + Math.floor(next() * (maximum - minimum + 1))
  return {
    next,
    between,
    happens: (probability) => next() < probability,
    pick: (list) => list[between(0, list.length - 1)] as (typeof list)[number]
  }
}

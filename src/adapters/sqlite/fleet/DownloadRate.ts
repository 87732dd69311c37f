/** How fast a download goes, from what the device tells of it now and then. */

/** A report of bytes that later ones are held against, and the rate known by then. */
export interface Sample {
  readonly atMs: number | null
  readonly bytes: number | null
  /** Bytes per second; null where it is not known. */
  readonly rate: number | null
}

const nothing: Sample = { atMs: null, bytes: null, rate: null }

/** Between samples: shorter ones say more of bursts than of the line. */
const windowMs = 5_000
/** After a longer silence the line has to show anew what it can: the device was off, or waited. */
const silenceMs = 120_000
/** Before there is a whole window, this much must have passed. */
const leastMs = 500

/**
 * What is known after a report of `doneBytes` at `atMs`, by the device's clock. A rate is half the last window's, half what
 * was known before.
 */
export const nextSample = (known: Sample, doneBytes: number | null, atMs: number): Sample => {
  if (doneBytes === null) return nothing
  const fresh: Sample = { atMs, bytes: doneBytes, rate: null }
  if (known.atMs === null || known.bytes === null) return fresh
  const passedMs = atMs - known.atMs
  if (doneBytes < known.bytes || passedMs < 0 || passedMs > silenceMs) return fresh
  const rate = passedMs === 0 ? 0 : ((doneBytes - known.bytes) * 1_000) / passedMs
  if (passedMs < windowMs)
    return known.rate === null && passedMs >= leastMs ? { ...known, rate: Math.round(rate) } : known
  return { atMs, bytes: doneBytes, rate: Math.round(known.rate === null ? rate : (known.rate + rate) / 2) }
}

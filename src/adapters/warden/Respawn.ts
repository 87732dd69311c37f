/**
 * When the warden starts the client again, and when it takes it for hung: its judgement as pure functions, without clock
 * or process. All times are monotonic milliseconds.
 */

/** Ends that another start would only repeat: done, wrong command line, wrong configuration (sysexits 64 to 78). */
const isFinal = (code: number): boolean => code === 0 || code === 2 || (code >= 64 && code <= 78)

/** How a client ended. */
export interface ClientEnd {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  /** How long it lived. */
  readonly livedMs: number
}

/** What to do after an end. */
export type Verdict =
  | { readonly _tag: "Exit"; readonly code: number }
  | { readonly _tag: "Respawn"; readonly delayMs: number; readonly crashes: number }

/** The first delay; each further crash doubles it, up to the last. */
const firstDelayMs = 1_000
const lastDelayMs = 60_000
/** A life as long as this was a good one: the next crash counts as the first. */
export const goodLifeMs = 600_000

const signalCode = (signal: NodeJS.Signals | null): number =>
  signal === null ? 1 : (({ SIGINT: 130, SIGKILL: 137, SIGTERM: 143 } as Record<string, number>)[signal] ?? 1)

/**
 * @param crashes how many crashes in a row there were before this end
 * @param told whether the warden was told to stop, or the client is one that runs once
 */
export const afterEnd = (end: ClientEnd, crashes: number, told: boolean): Verdict => {
  if (told || (end.code !== null && isFinal(end.code))) {
    return { _tag: "Exit", code: end.code ?? signalCode(end.signal) }
  }
  const before = end.livedMs >= goodLifeMs ? 0 : crashes
  const delayMs = Math.min(lastDelayMs, firstDelayMs * 2 ** Math.min(before, 16))
  return { _tag: "Respawn", delayMs, crashes: before + 1 }
}

/** When the warden last heard of its client. */
export interface Signs {
  /** The client's start. */
  readonly startedAt: number
  /** The last word of its event loop; null before its first. */
  readonly beatAt: number | null
  /** The last word of its watchdog, which speaks only while the loops do; null before its first. */
  readonly aliveAt: number | null
  /** When the warden itself looked last: one that was kept from running must not blame its client. */
  readonly lookedAt: number
}

/** How often the warden looks, and how often the client's event loop speaks. */
export const lookMs = 1_000
export const beatMs = 1_000

/** A start on a slow and busy machine. */
const startMs = 120_000
/** The client's own watchdog starts silent loops afresh first; only when that has not helped is it the warden's turn. */
export const loopsMs = 240_000

/**
 * Whether the client hangs, as a sentence, or null.
 *
 * @param hungAfterMs the bound on the silence of the event loop
 */
export const hangs = (signs: Signs, now: number, hungAfterMs: number): string | null => {
  if (now - signs.lookedAt > lookMs * 5) return null
  if (signs.beatAt === null) {
    return now - signs.startedAt > startMs
      ? `it said nothing for ${now - signs.startedAt} ms after its start`
      : null
  }
  if (now - signs.beatAt > hungAfterMs) return `its event loop stands still for ${now - signs.beatAt} ms`
  const loopsAt = signs.aliveAt ?? signs.startedAt
  return now - loopsAt > Math.max(loopsMs, hungAfterMs)
    ? `a loop that must run is silent for ${now - loopsAt} ms`
    : null
}

/** The signs after the warden was kept from looking (suspended, or stopped): the silence before counts for nothing. */
export const afterGap = (signs: Signs, now: number): Signs => {
  if (now - signs.lookedAt <= lookMs * 5) return { ...signs, lookedAt: now }
  const slept = now - signs.lookedAt
  return {
    startedAt: signs.startedAt + slept,
    beatAt: signs.beatAt === null ? null : now,
    aliveAt: signs.aliveAt === null ? null : signs.aliveAt + slept,
    lookedAt: now
  }
}

/**
 * Progress bars on stderr, where that is a terminal; nothing anywhere else.
 *
 * @module
 */
import { Clock, Effect, type Scope } from "effect"
import { Screen } from "./Screen.ts"
import { showDuration, showSize } from "./Text.ts"

export interface ProgressBar {
  readonly update: (doneBytes: number) => Effect.Effect<void>
}

const redrawMs = 100
const clearLine = "\r\u001b[K"

const barText = (what: string, done: number, total: number, elapsedMs: number, columns: number): string => {
  const share = total === 0 ? 1 : Math.min(1, done / total)
  const rate = elapsedMs > 0 ? done / elapsedMs : 0
  const rest = rate > 0 && share < 1 ? `, ${showDuration((total - done) / rate)} left` : ""
  const figures = `${Math.floor(share * 100)} % of ${showSize(total)}${rest}`
  const width = Math.max(0, Math.min(30, columns - what.length - figures.length - 6))
  const filled = Math.round(share * width)
  return `${what} [${"#".repeat(filled)}${".".repeat(width - filled)}] ${figures}`.slice(
    0,
    Math.max(0, columns - 1)
  )
}

/** A bar over bytes; its line is wiped when the scope closes. */
export const progressBar = (
  what: string,
  totalBytes: number
): Effect.Effect<ProgressBar, never, Screen | Scope.Scope> =>
  Effect.gen(function* () {
    const screen = yield* Screen
    if (!screen.errIsTerminal) return { update: () => Effect.void }
    const startedMs = yield* Clock.currentTimeMillis
    let drawnMs = Number.NEGATIVE_INFINITY
    yield* Effect.addFinalizer(() => (drawnMs > 0 ? screen.write("err", clearLine) : Effect.void))
    return {
      update: (doneBytes: number) =>
        Effect.gen(function* () {
          const nowMs = yield* Clock.currentTimeMillis
          if (nowMs - drawnMs < redrawMs && doneBytes < totalBytes) return
          drawnMs = nowMs
          const text = barText(what, doneBytes, totalBytes, nowMs - startedMs, screen.columns())
          yield* screen.write("err", `${clearLine}${text}`)
        })
    }
  })

/** A line that is replaced by the next one; for states without figures. */
export const statusLine: Effect.Effect<(text: string) => Effect.Effect<void>, never, Screen | Scope.Scope> =
  Effect.gen(function* () {
    const screen = yield* Screen
    if (!screen.errIsTerminal) return () => Effect.void
    let isDrawn = false
    yield* Effect.addFinalizer(() => (isDrawn ? screen.write("err", clearLine) : Effect.void))
    return (text: string) => {
      isDrawn = text !== ""
      return screen.write("err", `${clearLine}${text.slice(0, Math.max(0, screen.columns() - 1))}`)
    }
  })

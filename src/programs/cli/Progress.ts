/**
 * Progress in words, and bars on stderr, where that is a terminal; nothing anywhere else.
 *
 * @module
 */
import { Clock, Effect, type Scope } from "effect"
import type { JobView } from "../../schemas/ManagementApi.ts"
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

/** What a server tells of a job on its way. */
export type JobProgress = Pick<JobView, "state" | "done_bytes" | "total_bytes" | "bytes_per_second">

/** How long the rest takes if bytes go on coming as they did; null where that is not known. */
export const restMs = ({ bytes_per_second, done_bytes, total_bytes }: JobProgress): number | null =>
  done_bytes === null || total_bytes === null || bytes_per_second === null || bytes_per_second === 0
    ? null
    : Math.ceil((Math.max(total_bytes - done_bytes, 0) * 1_000) / bytes_per_second)

/** A device that downloads tells of it twice a minute at least; without news for longer, figures are of the past. */
const staleMs = 120_000

/**
 * A state with what is known of its bytes: `downloading 43 % of 28.6 MiB, 1.2 MiB/s, 14 s left`. Figures that are older than
 * two minutes are shown as such.
 */
export const progressText = (progress: JobProgress, ageMs = 0): string => {
  const { bytes_per_second, done_bytes, state, total_bytes } = progress
  if (done_bytes === null || total_bytes === null || total_bytes === 0) return state
  const done = `${state} ${Math.floor((100 * done_bytes) / total_bytes)} % of ${showSize(total_bytes)}`
  if (ageMs > staleMs) return `${done}, no news for ${showDuration(ageMs)}`
  const rest = restMs(progress)
  const rate = bytes_per_second === null ? "" : `, ${showSize(bytes_per_second)}/s`
  return `${done}${rate}${rest === null || rest === 0 ? "" : `, ${showDuration(rest)} left`}`
}

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

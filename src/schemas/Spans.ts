/** Parts of a file, as byte offsets: which are there, and which are missing. */
import { Schema } from "effect"
import { Count } from "./Ids.ts"
import { Limits } from "./Limits.ts"

/** From a byte to before another. */
export interface Span {
  readonly from: number
  readonly until: number
}

/** Spans in rising order; between two of them something is missing. */
export type Spans = ReadonlyArray<Span>

/** As spans are written down: pairs of `from` and `until`. */
export const SpansText = Schema.Array(Schema.Tuple([Count, Count])).check(
  Schema.isMaxLength(Limits.downloadSpans)
)

/** How many bytes they hold together. */
export const spannedBytes = (spans: Spans): number =>
  spans.reduce((sum, { from, until }) => sum + until - from, 0)

/** With one more, whatever it touches or covers. */
export const withSpan = (spans: Spans, added: Span): Spans => {
  if (added.from >= added.until) return spans
  const apart = spans.filter(({ from, until }) => until < added.from || from > added.until)
  const joined = spans.filter(({ from, until }) => until >= added.from && from <= added.until)
  const whole = {
    from: Math.min(added.from, ...joined.map(({ from }) => from)),
    until: Math.max(added.until, ...joined.map(({ until }) => until))
  }
  return [...apart, whole].sort((one, other) => one.from - other.from)
}

/** What is missing between 0 and `totalBytes`, in rising order. */
export const missingSpans = (spans: Spans, totalBytes: number): Spans => {
  const missing: Array<Span> = []
  let at = 0
  for (const { from, until } of spans) {
    if (from >= totalBytes) break
    if (from > at) missing.push({ from: at, until: from })
    at = Math.max(at, until)
  }
  return at < totalBytes ? [...missing, { from: at, until: totalBytes }] : missing
}

/** What of them lies before `end`; nothing of what makes no sense. */
export const spansBefore = (spans: Spans, end: number): Spans =>
  spans.reduce<Spans>((kept, { from, until }) => withSpan(kept, { from, until: Math.min(until, end) }), [])

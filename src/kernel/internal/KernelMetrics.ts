/**
 * The figures of a system as Effect metrics. Counting happens in plain numbers on the hot path; publishing carries the
 * difference since the last time over to the metrics, when somebody wants to read them.
 */
import { Effect, Metric } from "effect"
import type { Kernel } from "./Kernel.ts"

const counters = {
  handled: Metric.counter("postern_messages_handled_total", { incremental: true }),
  failedReplies: Metric.counter("postern_told_messages_failed_total", { incremental: true }),
  withdrawn: Metric.counter("postern_messages_withdrawn_total", { incremental: true }),
  lateReplies: Metric.counter("postern_late_replies_total", { incremental: true }),
  crashes: Metric.counter("postern_actor_crashes_total", { incremental: true }),
  restarts: Metric.counter("postern_actor_restarts_total", { incremental: true }),
  refused: Metric.counter("postern_fenced_deeds_refused_total", { incremental: true })
} satisfies Record<keyof Kernel["totals"], unknown>

const deadLetters = Metric.counter("postern_dead_letters_total", { incremental: true })
const fencedLives = Metric.gauge("postern_fenced_lives")

/** An effect that publishes one system's figures, each time those that have come up since the time before. */
export const makePublisher = (kernel: Kernel, system: string): Effect.Effect<void> => {
  const published = { ...kernel.totals }
  const publishedDead = { ...kernel.deadLetters.counts }
  return Effect.gen(function* () {
    for (const name of Object.keys(counters) as Array<keyof typeof counters>) {
      const now = kernel.totals[name]
      yield* Metric.update(Metric.withAttributes(counters[name], { system }), now - published[name])
      published[name] = now
    }
    for (const reason of Object.keys(publishedDead) as Array<keyof typeof publishedDead>) {
      const now = kernel.deadLetters.counts[reason]
      yield* Metric.update(
        Metric.withAttributes(deadLetters, { system, reason }),
        now - publishedDead[reason]
      )
      publishedDead[reason] = now
    }
    yield* Metric.update(Metric.withAttributes(fencedLives, { system }), kernel.fencedNow)
  })
}

/** What Mosquitto tells of itself: that it was started anew, and that it loses messages. */
import { Clock, Effect } from "effect"
import type { AgentBook } from "../../ports/AgentBook.ts"
import type { BrokerHandlers } from "../../ports/MessageBroker.ts"
import { droppedTopic, uptimeTopic } from "./DynamicSecurity.ts"

/** Its uptime counts whole seconds. */
const slackMs = 1_000

/**
 * Wills are not kept over Mosquitto's own end. So whoever was there before it was started, and has not come again since,
 * is gone: no connection outlives it.
 */
export const makeVitals = (book: AgentBook["Service"], handlers: Pick<BrokerHandlers, "presence">) => {
  let connectedAtMs = 0
  let isJudged = false
  let dropped: number | undefined

  const judge = Effect.fnUntraced(function* (uptimeMs: number) {
    isJudged = true
    const startedAtMs = (yield* Clock.currentTimeMillis) - uptimeMs
    const beforeMs = Math.min(connectedAtMs, startedAtMs + slackMs)
    for (const { agent, status, statusAtMs } of book.all())
      if (status === "C" && statusAtMs < beforeMs) yield* handlers.presence(agent, false)
  })
  const countDropped = Effect.fnUntraced(function* (count: number) {
    const more = count - (dropped ?? count)
    dropped = count
    if (more > 0)
      yield* Effect.logWarning(
        `Mosquitto has dropped ${more} messages: queues were full (max_queued_messages), or rights were lacking`
      )
  })
  return {
    connected: (nowMs: number): void => {
      connectedAtMs = nowMs
      isJudged = false
      dropped = undefined
    },
    told: (topic: string, words: string): Effect.Effect<void> => {
      const value = Number.parseInt(words, 10)
      if (!Number.isSafeInteger(value)) return Effect.void
      if (topic === droppedTopic) return countDropped(value)
      return topic === uptimeTopic && !isJudged && connectedAtMs > 0 ? judge(value * 1_000) : Effect.void
    }
  }
}

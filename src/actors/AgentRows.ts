/**
 * The directory's rows of agents on their way to the disk: written together, and in the order in which they changed.
 */
import { Effect } from "effect"
import { AgentBook } from "../ports/AgentBook.ts"
import { type AgentRow, MessageStore } from "../ports/MessageStore.ts"
import type { AgentName } from "../schemas/Topics.ts"

/** Writes a row, and then does what is to follow once it is safe. */
export type Later = (
  row: AgentRow,
  then?: Effect.Effect<void, { readonly message: string }>
) => Effect.Effect<void>

/** Rows that are written at the same time, which the database does in one transaction. */
const writtenTogether = 64

/**
 * Writes without keeping the next word waiting: a thousand agents come at once when the broker was away. What waits is the
 * newest row of each agent. `kept` is to be told when `start`'s task, of which there is one at a time, is done.
 */
export const makeAgentRows = (startTask: (work: Effect.Effect<void>) => Effect.Effect<void>) =>
  Effect.gen(function* () {
    const store = yield* MessageStore
    const book = yield* AgentBook
    const waiting = new Map<
      AgentName,
      readonly [AgentRow, Effect.Effect<void, { readonly message: string }>]
    >()
    let isWriting = false
    const start = Effect.suspend(() => {
      if (isWriting || waiting.size === 0) return Effect.void
      isWriting = true
      const rows = [...waiting.values()]
      waiting.clear()
      const write = ([row, then]: (typeof rows)[number]) =>
        // Whoever was turned out meanwhile is not to be written down again.
        book.get(row.agent)?.device !== row.device
          ? Effect.void
          : Effect.catch(Effect.andThen(store.putAgent(row), then), (error) =>
              Effect.logError(`a word of ${row.agent} was not kept: ${error.message}`)
            )
      return startTask(Effect.forEach(rows, write, { concurrency: writtenTogether, discard: true }))
    })
    const later: Later = (row, then) => {
      waiting.set(row.agent, [row, then ?? waiting.get(row.agent)?.[1] ?? Effect.void])
      return start
    }
    return {
      later,
      kept: Effect.suspend(() => {
        isWriting = false
        return start
      })
    }
  })

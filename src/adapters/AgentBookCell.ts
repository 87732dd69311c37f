/** The port `AgentBook` in memory. */
import { Layer } from "effect"
import { AgentBook } from "../ports/AgentBook.ts"
import type { AgentRow } from "../ports/MessageStore.ts"
import type { AgentName } from "../schemas/Topics.ts"

export const AgentBookCell: Layer.Layer<AgentBook> = Layer.sync(AgentBook, () => {
  const rows = new Map<AgentName, AgentRow>()
  return {
    get: (name) => rows.get(name),
    all: () => [...rows.values()],
    set: (row) => void rows.set(row.agent, row),
    delete: (name) => void rows.delete(name)
  }
})

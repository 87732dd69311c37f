/**
 * The agents that broker services know, as a plain cell: written by the directory alone, read at every message, which has
 * never to wait for it.
 */
import { Context } from "effect"
import type { AgentName } from "../schemas/Topics.ts"
import type { AgentRow } from "./MessageStore.ts"

export class AgentBook extends Context.Service<
  AgentBook,
  {
    readonly get: (name: AgentName) => AgentRow | undefined
    readonly all: () => ReadonlyArray<AgentRow>
    readonly set: (row: AgentRow) => void
    readonly delete: (name: AgentName) => void
  }
>()("postern/ports/AgentBook") {}

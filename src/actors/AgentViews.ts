/** What the directory tells operators: agents, what waits for them, and what was refused. */
import { Effect } from "effect"
import { AgentBook } from "../ports/AgentBook.ts"
import { type AgentRow, type Backlog, MessageStore, type RefusalRow } from "../ports/MessageStore.ts"
import { RelayCrypto } from "../ports/RelayCrypto.ts"
import type { Name } from "../schemas/Ids.ts"
import { Limits } from "../schemas/Limits.ts"
import { Unavailable } from "../schemas/ManagementErrors.ts"
import type { AgentsOverview, AgentView, RefusalView } from "../schemas/MessagingViews.ts"
import type { DirectoryQuery } from "../schemas/protocols/Directory.ts"
import { agentsBehind } from "./AgentDecisions.ts"
import { monotonicMs } from "./Alarm.ts"

/** What waits is counted anew after this, however often somebody asks. */
const freshMs = 5_000

const agentView = (row: AgentRow, { queued, undelivered }: Backlog): AgentView => ({
  agent: row.agent,
  device: row.device,
  signing_key: row.signingKey,
  agreement: row.agreement,
  status: row.status,
  status_at_ms: row.statusAtMs,
  visible: row.visible,
  edge_devices: row.edgeDevices,
  undelivered,
  queued
})

const refusalView = ({ agent, code, count, lastAtMs }: RefusalRow): RefusalView => ({
  agent: agent as Name | null,
  code,
  count,
  last_at_ms: lastAtMs
})

const nothing: Backlog = { undelivered: 0, queued: 0 }
const unavailable = new Unavailable({ message: "the store of messages cannot serve at the moment" })

const orUnavailable = <A, E extends { readonly message: string }, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.catch(effect, (error) =>
    Effect.andThen(Effect.logError(`agents cannot be shown: ${error.message}`), Effect.fail(unavailable))
  )

/** Handlers of the directory's questions. */
export const makeAgentViews = Effect.gen(function* () {
  const store = yield* MessageStore
  const book = yield* AgentBook
  const crypto = yield* RelayCrypto
  let overview: { readonly atMs: number; readonly told: AgentsOverview } | null = null

  const shown = Effect.fnUntraced(function* (rows: ReadonlyArray<AgentRow>) {
    const backlogs = yield* store.backlogs(rows.map(({ agent }) => agent))
    return rows.map((row, index) => agentView(row, backlogs[index] ?? nothing))
  })

  const count = Effect.gen(function* () {
    const agents = { C: 0, DG: 0, DU: 0 }
    const rows = book.all()
    for (const { status } of rows) agents[status]++
    const reasons = yield* store.refusalCounts
    const lastMs = Math.max(0, ...reasons.map(({ lastAtMs }) => lastAtMs))
    return {
      signing_key: crypto.signingKey,
      agents,
      visible: rows.filter(({ visible }) => visible).length,
      ...(yield* store.backlog),
      refusals: Object.fromEntries(reasons.map(({ code, count: times }) => [code, times])),
      last_refusal_at_ms: lastMs === 0 ? null : lastMs
    } satisfies AgentsOverview
  })

  return {
    Agents: ({ payload: { behind, limit, status } }: { readonly payload: DirectoryQuery }) =>
      Effect.suspend(() => {
        const rows = book.all().filter((row) => (status ?? row.status) === row.status)
        return orUnavailable(shown(agentsBehind(rows, behind, limit)))
      }),
    Agent: ({ payload: { agent } }: { readonly payload: { readonly agent: Name } }) =>
      Effect.gen(function* () {
        const row = book.get(agent)
        const refusals = yield* store.refusals(Limits.agentsPerPage, agent)
        const [view] = row === undefined ? [] : yield* shown([row])
        return view === undefined ? null : { agent: view, refusals: refusals.map(refusalView) }
      }).pipe(orUnavailable),
    Refusals: ({ payload: { limit } }: { readonly payload: { readonly limit: number } }) =>
      orUnavailable(Effect.map(store.refusals(limit), (rows) => rows.map(refusalView))),
    Overview: () =>
      Effect.gen(function* () {
        const nowMs = yield* monotonicMs
        if (overview === null || nowMs - overview.atMs >= freshMs)
          overview = { atMs: nowMs, told: yield* count }
        return overview.told
      }).pipe(orUnavailable)
  }
})

/** The management API's rollouts: questions to the store, signed documents to the actors. */
import { Clock, Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { FleetStore } from "../../ports/FleetStore.ts"
import { type RolloutRow, RolloutStore } from "../../ports/RolloutStore.ts"
import { ManagementApi, NotFound } from "../../schemas/ManagementApi.ts"
import type { RolloutId, RolloutView } from "../../schemas/Rollout.ts"
import { countsOf, outcomeOf, type RolloutTally } from "../../schemas/RolloutJudgement.ts"
import { callerName } from "./ManagementAccess.ts"
import { orUnavailable } from "./ManagementFailures.ts"
import type { ManagementOptions } from "./ManagementHandlers.ts"
import { jobView } from "./ManagementViews.ts"

/** The newest of all rollouts that one answer shows. */
const rolloutsPerPage = 100

const rolloutView = (row: RolloutRow, tally: ReadonlyArray<RolloutTally>, nowMs: number): RolloutView => ({
  id: row.plan.id,
  name: row.plan.name,
  group: row.plan.group,
  state: row.state,
  reason: row.reason,
  phase: row.phase,
  phases: row.plan.phases.length,
  phase_started_at_ms: row.phaseStartedAtMs,
  settled_at_ms: row.settledAtMs,
  version: row.version,
  created_at_ms: row.createdAtMs,
  created_by: row.createdBy,
  changed_at_ms: row.changedAtMs,
  expires_at_ms: row.plan.expires_at_ms,
  control_sequence: row.controlSequence,
  counts: countsOf(row, tally, nowMs)
})

const makeViews = Effect.map(RolloutStore, (store) => {
  const find = Effect.fnUntraced(function* (id: RolloutId) {
    const row = yield* orUnavailable(store.rollout(id))
    return row ?? (yield* new NotFound({ message: "there is no such rollout" }))
  })
  const view = Effect.fnUntraced(function* (row: RolloutRow) {
    const tally = yield* orUnavailable(store.rolloutTally(row.plan.id))
    return rolloutView(row, tally, yield* Clock.currentTimeMillis)
  })
  return {
    find,
    view,
    detail: Effect.fnUntraced(function* (id: RolloutId) {
      const row = yield* find(id)
      const nowMs = yield* Clock.currentTimeMillis
      const members = yield* orUnavailable(store.rolloutMembers(id))
      return {
        rollout: yield* view(row),
        plan: row.envelope,
        controls: yield* orUnavailable(store.rolloutControls(id)),
        devices: members.map((member) => ({ ...member, outcome: outcomeOf(row, member, nowMs) }))
      }
    })
  }
})

export const RolloutHandlers = (options: ManagementOptions) =>
  HttpApiBuilder.group(ManagementApi, "rollouts", (handlers) =>
    Effect.gen(function* () {
      const store = yield* RolloutStore
      const fleet = yield* FleetStore
      const { detail, find, view } = yield* makeViews
      const { rollout, rollouts } = options.actors
      return handlers.handleAll({
        open: Effect.fnUntraced(function* ({ payload: envelope }) {
          const actor = yield* callerName
          const id = yield* orUnavailable(rollouts.ask("Open", { envelope, actor }))
          return yield* Effect.flatMap(find(id), view)
        }),
        list: Effect.fnUntraced(function* ({ query }) {
          const rows = yield* orUnavailable(store.rollouts(query.open === "true", rolloutsPerPage))
          return { rollouts: yield* Effect.forEach(rows, view) }
        }),
        show: ({ params }) => detail(params.id),
        jobs: Effect.fnUntraced(function* ({ params }) {
          yield* find(params.id)
          const members = yield* orUnavailable(store.rolloutMembers(params.id))
          const rows = yield* Effect.forEach(members, ({ order }) => orUnavailable(fleet.job(order)))
          return { jobs: rows.flatMap((row) => (row === null ? [] : [jobView(row)])) }
        }),
        control: Effect.fnUntraced(function* ({ params, payload: envelope }) {
          const actor = yield* callerName
          // Asked first, so that made-up ids do not start actors.
          yield* find(params.id)
          yield* orUnavailable(rollout(params.id).ask("Control", { envelope, actor }))
          return yield* Effect.flatMap(find(params.id), view)
        })
      })
    })
  )

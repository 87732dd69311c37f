/** The part of an inspection that supervisors of both kinds have in common: they have children and no mailbox. */
import type { Inspection, InspectionState } from "../Inspection.ts"
import type { ChildView, LastFailure } from "./Node.ts"

/** A failure as inspection shows it. */
export const inspectFailure = (failure: LastFailure | undefined): Inspection["last_failure"] =>
  failure === undefined ? null : { at_ms: failure.atMs, reason: failure.reason }

export const inspectParent = (
  parent: { readonly id: string; readonly path: string; readonly kind: "supervisor" | "dynamic" },
  state: InspectionState,
  view: ChildView,
  ageMs: number | null,
  childCount: number,
  children: ReadonlyArray<Inspection>
): Inspection => ({
  id: parent.id,
  path: parent.path,
  kind: parent.kind,
  state: view.degraded && state === "waiting" ? "degraded" : state,
  restarts: view.restarts,
  last_failure: inspectFailure(view.lastFailure),
  age_ms: ageMs,
  beat_age_ms: null,
  mailbox: null,
  handled: 0,
  failed_replies: 0,
  withdrawn: 0,
  late_replies: 0,
  refused: 0,
  tasks: 0,
  child_count: childCount,
  children
})

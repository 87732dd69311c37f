/** The part of an inspection that supervisors of both kinds have in common: they have children and no mailbox. */
import type { Inspection, InspectionState } from "../Inspection.ts"
import type { ChildView } from "./Node.ts"

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
  lastFailure: view.lastFailure ?? null,
  ageMs,
  beatAgeMs: null,
  mailbox: null,
  handled: 0,
  failedReplies: 0,
  withdrawn: 0,
  lateReplies: 0,
  refused: 0,
  tasks: 0,
  childCount,
  children
})

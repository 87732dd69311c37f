/** The inspection of an actor, and of the temporary children of its life. */
import type { Inspection } from "../Inspection.ts"
import type { Cell } from "./Cell.ts"
import { inspectFailure } from "./inspectParent.ts"
import type { ChildView } from "./Node.ts"

const noView: ChildView = { restarts: 0, degraded: false, lastFailure: undefined }

export const inspectCell = (cell: Cell, view: ChildView, childLimit: number): Inspection => {
  const { life, mailbox } = cell
  const now = cell.kernel.deadlines.now()
  const spawned = [...(life?.spawned?.children.values() ?? [])]
  return {
    id: cell.id,
    path: cell.path,
    kind: "actor",
    state: view.degraded && cell.state === "waiting" ? "degraded" : cell.state,
    restarts: view.restarts,
    last_failure: inspectFailure(view.lastFailure ?? cell.lastFailure),
    age_ms: life === undefined ? null : now - life.startedMs,
    beat_age_ms: life === undefined ? null : now - life.beatMs,
    mailbox: {
      depth: mailbox.depth,
      waiting: mailbox.waiting,
      capacity: mailbox.capacity,
      overflow: mailbox.overflow
    },
    handled: cell.handled,
    failed_replies: cell.failedReplies,
    withdrawn: cell.withdrawn,
    late_replies: cell.lateReplies,
    refused: cell.refused,
    tasks: life?.tasks ?? 0,
    child_count: spawned.length,
    children: spawned.slice(0, childLimit).map((child) => inspectCell(child, noView, childLimit))
  }
}

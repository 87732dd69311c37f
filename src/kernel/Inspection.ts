/**
 * Inspection: the running tree as data, for `postern ps`, the control socket and the dashboard, and as text for people.
 */
import { Schema } from "effect"

/** State of an actor or supervisor. `waiting`: down, and to be started again; `degraded`: the same at long intervals. */
export const InspectionState = Schema.Literals([
  "idle",
  "starting",
  "running",
  "stopping",
  "waiting",
  "degraded",
  "stopped"
])
export type InspectionState = typeof InspectionState.Type

/** The mailbox of an actor. */
export const MailboxInspection = Schema.Struct({
  depth: Schema.Int,
  waiting: Schema.Int,
  capacity: Schema.Int,
  overflow: Schema.Literals(["wait", "reject", "drop-oldest"])
})

/** One node of the tree, with its children in start order. */
export interface Inspection {
  readonly id: string
  readonly path: string
  readonly kind: "actor" | "supervisor" | "dynamic"
  readonly state: InspectionState
  /** Restarts by its supervisor since the system started. */
  readonly restarts: number
  /** Wall-clock milliseconds of the last crash or failed start, and its reason. */
  readonly last_failure: { readonly at_ms: number; readonly reason: string } | null
  /** Milliseconds the current life has run; null when there is none. */
  readonly age_ms: number | null
  /** Milliseconds since the life last beat; null when there is none. */
  readonly beat_age_ms: number | null
  readonly mailbox: typeof MailboxInspection.Type | null
  readonly handled: number
  readonly failed_replies: number
  readonly withdrawn: number
  readonly late_replies: number
  /** Deeds of abandoned lives that were refused. */
  readonly refused: number
  /** Tasks running in the current life. */
  readonly tasks: number
  /** Children there are; more than are shown when the request set a bound. */
  readonly child_count: number
  readonly children: ReadonlyArray<Inspection>
}

/** Schema of a node. */
export const Inspection: Schema.Codec<Inspection> = Schema.Struct({
  id: Schema.String,
  path: Schema.String,
  kind: Schema.Literals(["actor", "supervisor", "dynamic"]),
  state: InspectionState,
  restarts: Schema.Int,
  last_failure: Schema.NullOr(Schema.Struct({ at_ms: Schema.Finite, reason: Schema.String })),
  age_ms: Schema.NullOr(Schema.Finite),
  beat_age_ms: Schema.NullOr(Schema.Finite),
  mailbox: Schema.NullOr(MailboxInspection),
  handled: Schema.Int,
  failed_replies: Schema.Int,
  withdrawn: Schema.Int,
  late_replies: Schema.Int,
  refused: Schema.Int,
  tasks: Schema.Int,
  child_count: Schema.Int,
  children: Schema.Array(Schema.suspend((): Schema.Codec<Inspection> => Inspection))
})

/** The whole system: the tree and what belongs to no single actor. */
export const SystemInspection = Schema.Struct({
  name: Schema.String,
  /** Wall-clock milliseconds of this report. */
  at_ms: Schema.Finite,
  uptime_ms: Schema.Finite,
  dead_letters: Schema.Struct({
    full: Schema.Int,
    evicted: Schema.Int,
    stopped: Schema.Int,
    "not-found": Schema.Int,
    fenced: Schema.Int
  }),
  /** The latest dead letters, oldest first; without their payloads. */
  latest_dead_letters: Schema.Array(
    Schema.Struct({
      path: Schema.String,
      tag: Schema.String,
      reason: Schema.Literals(["full", "evicted", "stopped", "not-found", "fenced"]),
      /** Wall-clock milliseconds. */
      at_ms: Schema.Finite
    })
  ),
  /** Abandoned lives that still run, and all there ever were. */
  fenced_now: Schema.Int,
  fenced_total: Schema.Int,
  root: Inspection
})
export type SystemInspection = typeof SystemInspection.Type

/** A duration for people: `850ms`, `42s`, `12m`, `3h`, `9d`. */
export const renderAge = (ms: number | null): string => {
  if (ms === null) {
    return "-"
  }
  const steps: ReadonlyArray<readonly [number, number, string]> = [
    [1_000, 1, "ms"],
    [120_000, 1_000, "s"],
    [7_200_000, 60_000, "m"],
    [172_800_000, 3_600_000, "h"]
  ]
  const step = steps.find(([limit]) => ms < limit) ?? [0, 86_400_000, "d"]
  return `${Math.floor(ms / step[1])}${step[2]}`
}

const rowsOf = (node: Inspection, lead: string, childLead: string): Array<ReadonlyArray<string>> => {
  const mailbox = node.mailbox === null ? "-" : `${node.mailbox.depth}/${node.mailbox.capacity}`
  const row = [
    `${lead}${node.id}`,
    node.state,
    renderAge(node.age_ms),
    mailbox,
    node.kind === "actor" ? String(node.handled) : "-",
    String(node.restarts),
    node.last_failure === null ? "" : node.last_failure.reason
  ]
  const rows: Array<ReadonlyArray<string>> = [row]
  node.children.forEach((child, index) => {
    const isLast = index === node.children.length - 1 && node.child_count === node.children.length
    rows.push(...rowsOf(child, `${childLead}${isLast ? "└ " : "├ "}`, `${childLead}${isLast ? "  " : "│ "}`))
  })
  if (node.child_count > node.children.length) {
    rows.push([`${childLead}└ … ${node.child_count - node.children.length} more`, "", "", "", "", "", ""])
  }
  return rows
}

const title = ["ACTOR", "STATE", "AGE", "MAILBOX", "HANDLED", "RESTARTS", "LAST FAILURE"]

/** Control characters in a failure's text must not reach a terminal. */
const printable = (text: string): string => text.replace(/\p{Cc}/gu, "?")

/** Dead letters in words, by reason: `3 dead letters (2 full, 1 stopped)`. */
const renderDead = (system: SystemInspection): string => {
  const counts = Object.entries(system.dead_letters).filter(([, count]) => count > 0)
  const total = counts.reduce((sum, [, count]) => sum + count, 0)
  const reasons = counts.map(([reason, count]) => `${count} ${reason}`).join(", ")
  return `${total} dead letters${total === 0 ? "" : ` (${reasons})`}`
}

const abandoned = ({ fenced_now, fenced_total }: SystemInspection): string =>
  `${fenced_now} abandoned lives${fenced_total === fenced_now ? "" : ` (${fenced_total} ever)`}`

/** The tree as aligned columns, one line per actor, without a final newline. */
export const renderInspection = (system: SystemInspection): string => {
  const rows = [title, ...rowsOf(system.root, "", "")].map((row) => row.map(printable))
  const widths = title.map((_, column) => Math.max(...rows.map((row) => [...(row[column] as string)].length)))
  const lines = rows.map((row) =>
    row
      .map((cell, column) => cell + " ".repeat((widths[column] as number) - [...cell].length))
      .join("  ")
      .trimEnd()
  )
  lines.push(
    "",
    `${system.name}: up ${renderAge(system.uptime_ms)}, ${renderDead(system)}, ${abandoned(system)}`
  )
  return lines.join("\n")
}

/**
 * What commands show of jobs. Text from devices and servers is escaped here.
 *
 * @module
 */
import type { Receipt } from "../../schemas/Receipt.ts"
import { reasonText } from "../../schemas/Refusals.ts"
import { isFinal } from "../../schemas/WorkOrder.ts"
import { progressText, restMs } from "./Progress.ts"
import { counted, shortId, showAge, showDuration, showSize, showTime, visible } from "./Text.ts"
import { type JudgedJob, standing } from "./Verification.ts"

export const jobTableHeader = ["JOB", "DEVICE", "PACKAGE", "LANE", "STATE", "SUBMITTED", "RECEIPT"] as const

const deviceLabel = (job: JudgedJob): string => job.record?.name ?? shortId(job.view.device)

/** State with progress while something is on its way. */
const stateText = ({ view }: JudgedJob, nowMs: number): string =>
  isFinal(view.state) ? view.state : progressText(view, nowMs - view.changed_at_ms)

export const jobRow = (job: JudgedJob, nowMs: number): ReadonlyArray<string> => [
  job.view.id,
  visible(deviceLabel(job)),
  visible(job.name ?? "-"),
  job.view.lane,
  stateText(job, nowMs),
  showAge(job.view.submitted_at_ms, nowMs),
  standing(job)
]

/** How a run ended, in few words: `exit code 3`, `SIGKILL`, a refusal's text. */
export const endingText = (receipt: Receipt): string => {
  const { exit_code, reason, signal, state } = receipt
  if (state === "succeeded") return "succeeded"
  if (reason === "exit_code" && exit_code !== null) return `${state}: exit code ${exit_code}`
  if (reason === "signal" && signal !== null) return `${state}: ended by ${signal}`
  const detail = receipt.detail === null ? "" : ` (${visible(receipt.detail)})`
  return reason === null ? `${state}${detail}` : `${state}: ${reason}. ${reasonText(reason)}${detail}`
}

const outputLine = (output: NonNullable<Receipt["output"]>): string =>
  `${showSize(output.stdout_bytes)} on stdout, ${showSize(output.stderr_bytes)} on stderr${output.truncated ? `, cut to ${showSize(output.kept_bytes)}` : ""}`

/** A verified receipt as lines. */
export const receiptLines = ({
  document,
  digest
}: NonNullable<JudgedJob["receipt"]>): ReadonlyArray<readonly [string, string]> => {
  const { artifacts, output, usage } = document
  return [
    ["receipt", `number ${document.number}, verified, ${digest}`],
    ["ending", endingText(document)],
    ["attempts", `${document.attempts}`],
    ["received", showTime(document.received_at_ms)],
    ...(document.started_at_ms === null ? [] : [["started", showTime(document.started_at_ms)] as const]),
    ["ended", showTime(document.ended_at_ms)],
    ...(usage === null
      ? []
      : [
          [
            "used",
            `${showDuration(usage.wall_ms)}, processor ${usage.cpu_ms === null ? "not measured" : showDuration(usage.cpu_ms)}, memory ${usage.peak_memory_bytes === null ? "not measured" : showSize(usage.peak_memory_bytes)}`
          ] as const
        ]),
    ["output", output === null ? "none" : outputLine(output)],
    [
      "artifacts",
      artifacts === null
        ? "none"
        : `${counted(artifacts.entries, "entry", "entries")}, ${showSize(artifacts.unpacked_bytes)}`
    ],
    ["isolation", document.isolation ?? "nothing was run"],
    ["software", visible(document.software)]
  ]
}

/** A job as lines. */
export const jobLines = (job: JudgedJob, nowMs: number): ReadonlyArray<readonly [string, string]> => {
  const { order, receipt, view } = job
  return [
    ["job", view.id],
    ["device", `${visible(deviceLabel(job))} (${view.device})`],
    ["package", visible(job.name ?? "not submitted from here")],
    ["lane", view.lane],
    ["counter", `${view.counter}`],
    ["state", stateText(job, nowMs)],
    ["submitted", `${showAge(view.submitted_at_ms, nowMs)} by ${visible(view.submitted_by)}`],
    ...(order === null
      ? []
      : ([
          ["payload", `${order.document.payload.digest}, ${showSize(order.document.payload.size_bytes)}`],
          ["expires", showTime(order.document.expires_at_ms)],
          ["deadline", showTime(order.document.deadline_at_ms)]
        ] as const)),
    ...(view.cancel_requested ? [["cancel", "requested"] as const] : []),
    ...(receipt === null
      ? [["receipt", isFinal(view.state) ? "not here yet" : "none yet"] as const]
      : receiptLines(receipt))
  ]
}

/** A job for programs. `receipt` stands there only when it was verified. */
export const jobJson = (job: JudgedJob) => {
  const { view } = job
  return {
    job: view.id,
    device: view.device,
    device_name: job.record?.name ?? null,
    name: job.name,
    lane: view.lane,
    counter: view.counter,
    order_digest: view.digest,
    state: view.state,
    done_bytes: view.done_bytes,
    total_bytes: view.total_bytes,
    bytes_per_second: view.bytes_per_second,
    rest_ms: restMs(view),
    changed_at_ms: view.changed_at_ms,
    submitted_at_ms: view.submitted_at_ms,
    submitted_by: view.submitted_by,
    expires_at_ms: view.expires_at_ms,
    deadline_at_ms: view.deadline_at_ms,
    cancel_requested: view.cancel_requested,
    verified: job.receipt !== null && job.alarms.length === 0,
    receipt: job.receipt?.document ?? null,
    receipt_digest: job.receipt?.digest ?? null,
    alarms: job.alarms
  }
}

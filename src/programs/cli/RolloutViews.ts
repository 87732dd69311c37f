/**
 * What commands show of rollouts. Text from devices and servers is escaped here.
 *
 * @module
 */
import type { RolloutCounts, RolloutView } from "../../schemas/Rollout.ts"
import { endingText } from "./JobViews.ts"
import type { JudgedDevice, JudgedRollout } from "./RolloutVerification.ts"
import { shortId, showAge, showTime, visible } from "./Text.ts"
import { standing } from "./Verification.ts"

const countNames = ["succeeded", "failed", "missing", "open", "waiting", "withdrawn", "absent"] as const

/** `3 succeeded, 1 open`, without what is nought. */
export const countsText = (counts: RolloutCounts): string =>
  countNames
    .filter((name) => counts[name] > 0)
    .map((name) => `${counts[name]} ${name}`)
    .join(", ")

const reasonTexts = {
  operator: "by an operator",
  too_few_succeeded: "too few of the phase succeeded",
  too_many_failures: "too many devices failed"
} as const

/** A rollout's state with what one wants to know about it. */
export const stateText = (view: RolloutView): string => {
  const phase = `phase ${view.phase + 1} of ${view.phases}`
  switch (view.state) {
    case "loading":
      return "loading: not every order has reached the server"
    case "running":
      return view.settled_at_ms === null ? phase : `${phase} has succeeded, soaking`
    case "paused":
      return `paused in ${phase}: ${view.reason === null ? "" : reasonTexts[view.reason]}`
    default:
      return view.state
  }
}

export const rolloutTableHeader = ["ROLLOUT", "GROUP", "PACKAGE", "STATE", "DEVICES", "BEGUN"] as const

export const rolloutRow = (view: RolloutView, nowMs: number): ReadonlyArray<string> => [
  view.id,
  view.group,
  visible(view.name),
  stateText(view),
  countsText(view.counts),
  showAge(view.created_at_ms, nowMs)
]

/** A rollout as lines. */
export const rolloutLines = (
  { plan, view }: JudgedRollout,
  nowMs: number
): ReadonlyArray<readonly [string, string]> => [
  ["rollout", view.id],
  ["package", visible(plan.name)],
  ["digest", plan.payload.digest],
  ["group", plan.group],
  ["state", stateText(view)],
  ["devices", countsText(view.counts)],
  ["failures", `at most ${plan.maximum_failures}`],
  ["submitted", `${showAge(view.created_at_ms, nowMs)} by ${visible(view.created_by)}`],
  ["expires", showTime(plan.expires_at_ms)]
]

export const deviceTableHeader = ["DEVICE", "PHASE", "OUTCOME", "RECEIPT", "ENDING"] as const

const label = ({ name, planned }: JudgedDevice): string => visible(name ?? shortId(planned.device))

export const deviceRow = (device: JudgedDevice): ReadonlyArray<string> => {
  const receipt = device.job?.receipt ?? null
  return [
    label(device),
    `${device.phase + 1}`,
    device.outcome,
    device.job === null ? "-" : standing(device.job),
    receipt === null ? (device.job?.view.state ?? "-") : endingText(receipt.document)
  ]
}

const deviceJson = (device: JudgedDevice) => ({
  device: device.planned.device,
  name: device.name,
  phase: device.phase,
  job: device.planned.order,
  outcome: device.outcome,
  state: device.job?.view.state ?? null,
  verified: device.job?.receipt != null,
  receipt: device.job?.receipt?.document ?? null
})

export const rolloutJson = (judged: JudgedRollout) => ({
  ...judged.view,
  devices: judged.devices.map(deviceJson),
  alarms: judged.alarms
})

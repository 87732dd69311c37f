/**
 * What this machine's agent knows, for people. Names, subjects and bodies are others' words: every control character is
 * shown as such, and a body is set in, so that no line of it can pass for another message.
 *
 * @module
 */

import type { InboxMessage, LocalReport } from "../../schemas/AgentLocal.ts"
import type { DirectoryEntry } from "../../schemas/Agents.ts"
import { properties, shortId, showDuration, showTime, table, visible, visibleLines } from "./Text.ts"

const setIn = (text: string): string => visibleLines(text).replace(/^/gm, "  ")

/** One message, its body below its head. */
export const messageText = (message: InboxMessage["message"]): string => {
  const [level, from] =
    message.type === "postern/public/v1"
      ? ["public", `${message.claimed_from} (unproved)`]
      : [message.level, message.from]
  const head = [showTime(message.issued_at_ms), level, visible(from), visible(message.subject)]
  const body = typeof message.body === "string" ? message.body : JSON.stringify(message.body)
  return `${head.join("  ").trimEnd()}\n${setIn(body)}\n`
}

export const peerTableHeader = ["NAME", "ID", "STATUS", "EDGE DEVICES"] as const

const presence = { C: "connected", DG: "left", DU: "lost" } as const

export const peerRow = ({ agent, device, edge_devices, status }: DirectoryEntry): ReadonlyArray<string> => [
  visible(agent),
  shortId(device),
  presence[status],
  edge_devices.map(visible).join(", ") || "-"
]

const stateLine = ({ agent, enrolment }: LocalReport): string => {
  const [state, detail] =
    enrolment.phase === "accepted" ? [agent.state, agent.detail] : [enrolment.phase, enrolment.detail]
  return detail === "" ? state : `${state}: ${visible(detail)}`
}

const rtt = (ms: number | null): string => (ms === null ? "-" : showDuration(ms))

/** How an agent stands. */
export const reportText = (report: LocalReport): string => {
  const { links, name, queued, refused, waiting } = report.agent
  const reasons = Object.entries(refused).map(([reason, count]) => `${count} ${visible(reason)}`)
  const lines = properties([
    ["name", name ?? "-"],
    ["state", stateLine(report)],
    ...(report.enrolment.claim_code === null ? [] : [["claim code", report.enrolment.claim_code] as const]),
    ["to be sent", `${queued}`],
    ["to be read", `${waiting}`],
    ["refused", reasons.join(", ") || "nothing"]
  ])
  if (links.length === 0) return lines
  const rows = links.map(({ agent, last_rtt_ms, lost, pings, smoothed_rtt_ms }) => [
    visible(agent),
    `${pings}`,
    `${lost}`,
    rtt(last_rtt_ms),
    rtt(smoothed_rtt_ms)
  ])
  return `${lines}\n${table(["AGENT", "PINGS", "LOST", "LAST", "SMOOTHED"], rows)}`
}

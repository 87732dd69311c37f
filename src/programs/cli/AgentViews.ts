/**
 * How agents, broker services and refused messages are shown, and what about them needs the operator.
 *
 * @module
 */

import type { ServerStatus } from "../../schemas/ManagementApi.ts"
import type { MessageRefusal } from "../../schemas/Message.ts"
import type { AgentDetail, AgentView, MessagingStatus, RefusalView } from "../../schemas/MessagingViews.ts"
import { counted, properties, shortId, showAge, table, visible } from "./Text.ts"

const statusTexts: Readonly<Record<AgentView["status"], string>> = {
  C: "connected",
  DG: "left",
  DU: "lost"
}

/** What each reason means, for whoever reads the counts. */
export const messageRefusalTexts: Readonly<Record<MessageRefusal, string>> = {
  too_large: "larger than a message may be",
  malformed: "no document of the protocol",
  unknown_sender: "its sender is no agent here, or has not shaken hands",
  bad_signature: "not signed with its sender's key: forged, or changed on its way",
  wrong_inbox: "came to an inbox that is not for it",
  wrong_level: "its level is another than its inbox",
  wrong_sender: "says it is another's than who sent it",
  wrong_recipient: "sealed to somebody else, or no question to broker services",
  unknown_recipient: "its recipient is no agent here, or was turned away",
  not_permitted: "the server's policy, its table of rights, or a decision forbids it",
  not_for_this_key: "sealed to a key that is not held any more",
  not_opened: "could not be opened: forged, or changed on its way",
  expired: "came after its end, or its sender's clock is wrong",
  from_the_future: "its sender's clock is ahead",
  lives_too_long: "its end is further off than it may be",
  replayed: "came before",
  overloaded: "too much at once",
  bad_credentials: "somebody who could not prove the name"
}

export const agentTableHeader = [
  "NAME",
  "ID",
  "STATUS",
  "SINCE",
  "VISIBLE",
  "EDGE DEVICES",
  "WAITING"
] as const

export const agentRow = (agent: AgentView, nowMs: number): ReadonlyArray<string> => [
  agent.agent,
  shortId(agent.device),
  statusTexts[agent.status],
  showAge(agent.status_at_ms, nowMs),
  agent.visible ? "yes" : "no",
  visible(agent.edge_devices.join(" ")) || "-",
  `${agent.undelivered + agent.queued}`
]

/** Refusals as a table, or a sentence where there are none. */
export const refusalTable = (refusals: ReadonlyArray<RefusalView>, nowMs: number): string =>
  refusals.length === 0
    ? "Nothing was refused.\n"
    : table(
        ["FROM", "REASON", "TIMES", "LAST", "MEANING"],
        refusals.map(({ agent, code, count, last_at_ms }) => [
          agent ?? "(no agent)",
          code,
          `${count}`,
          showAge(last_at_ms, nowMs),
          messageRefusalTexts[code]
        ])
      )

/** One agent for people. */
export const agentText = ({ agent, refusals }: AgentDetail, nowMs: number): string => {
  const { agreement, edge_devices, queued, undelivered } = agent
  const lines = properties([
    ["name", agent.agent],
    ["id", agent.device],
    ["status", `${statusTexts[agent.status]} (${agent.status}), ${showAge(agent.status_at_ms, nowMs)}`],
    ["visible", agent.visible ? "yes: others are told of it" : "no: others are not told of it"],
    ["edge devices", visible(edge_devices.join(" ")) || "none"],
    ["signing key", agent.signing_key],
    ["seal to", `${agreement.key}, version ${agreement.version}`],
    [
      "waiting",
      undelivered + queued === 0
        ? "nothing"
        : `${counted(queued, "message", "messages")} in its session, ${undelivered} not there yet`
    ]
  ])
  return refusals.length === 0 ? lines : `${lines}\nRefused of it:\n${refusalTable(refusals, nowMs)}`
}

const refusedTimes = ({ refusals }: MessagingStatus): number =>
  Object.values(refusals).reduce((sum, count) => sum + count, 0)

/** Lines of `postern status`; none where the server carries no messages. */
export const messagingLines = ({
  messaging
}: Pick<ServerStatus, "messaging">): ReadonlyArray<readonly [string, string]> => {
  if (messaging === null) return []
  const { agents, broker, queued, undelivered } = messaging
  const all = agents.C + agents.DG + agents.DU
  const states = (["C", "DG", "DU"] as const).flatMap((status) =>
    agents[status] === 0 ? [] : [`${agents[status]} ${statusTexts[status]}`]
  )
  const broke =
    broker.state === "open"
      ? counted(broker.connected ?? 0, "connection", "connections")
      : "the broker is down"
  const parts = [
    all === 0 ? "no agents yet" : `${counted(all, "agent", "agents")} (${states.join(", ")})`,
    broke,
    ...(undelivered + queued === 0
      ? []
      : [`${counted(undelivered + queued, "message waits", "messages wait")}`]),
    ...(refusedTimes(messaging) === 0 ? [] : [`${refusedTimes(messaging)} refused`])
  ]
  return [["messages", parts.join(", ")]]
}

/** A refusal is told of for so long. */
const recentMs = 60 * 60_000

/** What about messages needs the operator. */
export const messagingNotes = ({
  messaging,
  messaging_problem,
  root_version,
  time_ms: nowMs
}: Pick<
  ServerStatus,
  "messaging" | "messaging_problem" | "root_version" | "time_ms"
>): ReadonlyArray<string> => {
  if (messaging === null)
    return messaging_problem === null ? [] : [`Messages: ${visible(messaging_problem)}.`]
  const lastMs = messaging.last_refusal_at_ms
  return [
    ...(messaging.broker.state === "down"
      ? [
          "The MQTT broker is down, and devices cannot write to each other: see postern ps, and the server's log."
        ]
      : []),
    ...(messaging.in_root || root_version === null
      ? []
      : [
          "No agent believes the server's broker services: the trust root does not name their key. postern keys root draft next.json --broker-services server, postern keys root sign next.json, postern keys root publish next.json"
        ]),
    ...(lastMs !== null && nowMs - lastMs < recentMs
      ? [`Messages were refused, the last one ${showAge(lastMs, nowMs)}: see postern agents refusals.`]
      : [])
  ]
}

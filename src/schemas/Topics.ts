/**
 * The topics of messaging: below a root of one's own choice, each agent has inboxes under its name. MQTT 3.1.1, section
 * 4.7: levels are parted by slashes.
 *
 *     ROOT/AGENT/public               everybody reads and writes
 *     ROOT/AGENT/public/pingreq       questions whether it is there
 *     ROOT/AGENT/public/pingack       answers to its own questions
 *     ROOT/AGENT/public/handshake     the keys it says are its own
 *     ROOT/AGENT/handshake            answers of broker services
 *     ROOT/AGENT/protected            signed messages, from broker services
 *     ROOT/AGENT/private              signed and sealed messages, from broker services
 *     ROOT/broker-services/…          all of these, and beside them:
 *     ROOT/broker-services/status     who has come and gone
 *     ROOT/broker-services/discovery  the list of those who may be seen
 */
import { Schema } from "effect"
import { Name } from "./Ids.ts"

export const brokerServices = "broker-services"

/** Who may stand as sender or recipient of a message. */
export const AgentName = Schema.Union([Name, Schema.Literal(brokerServices)])
export type AgentName = typeof AgentName.Type

/** Levels of letters, digits and dashes; no wildcard, no `$`, none empty. */
export const TopicRoot = Schema.String.check(
  Schema.isMaxLength(64),
  Schema.isPattern(/^[A-Za-z0-9_-]+(?:\/[A-Za-z0-9_-]+){0,3}$/)
)

export const inboxes = [
  "public",
  "public/pingreq",
  "public/pingack",
  "public/handshake",
  "handshake",
  "protected",
  "private"
] as const
/** What only broker services have. */
export const brokerInboxes = ["status", "discovery"] as const

export type Inbox = (typeof inboxes)[number] | (typeof brokerInboxes)[number]

/** Where a message arrives. */
export interface TopicPlace {
  readonly agent: AgentName
  readonly inbox: Inbox
}

/** The topic of an inbox below a root. */
export const topicOf = (root: string, { agent, inbox }: TopicPlace): string => `${root}/${agent}/${inbox}`

const isAgentName = Schema.is(AgentName)
const inboxesOf = (agent: string): ReadonlyArray<string> =>
  agent === brokerServices ? [...inboxes, ...brokerInboxes] : inboxes

/** What a topic names below a root; undefined where it is none of ours. */
export const placeOf = (root: string, topic: string): TopicPlace | undefined => {
  if (!topic.startsWith(`${root}/`)) return undefined
  const rest = topic.slice(root.length + 1)
  const at = rest.indexOf("/")
  const [agent, inbox] = [rest.slice(0, Math.max(at, 0)), rest.slice(at + 1)]
  if (!isAgentName(agent) || !inboxesOf(agent).includes(inbox)) return undefined
  return { agent, inbox: inbox as Inbox }
}

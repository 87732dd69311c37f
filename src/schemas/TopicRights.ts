/**
 * Who may write and read which topics, as one table: the embedded broker asks it, and Mosquitto's access file is written
 * from it. Patterns are MQTT topic filters below the root; `%u` is the name of whoever asks, as Mosquitto spells it.
 */
import { brokerServices } from "./Topics.ts"

/**
 * - `agent`: a device that an operator has accepted
 * - `stranger`: one that has proved a key of its own and nothing more
 * - `services`: broker services themselves
 */
export type TopicRole = "agent" | "stranger" | "services"

export interface TopicRight {
  readonly role: TopicRole
  readonly may: "write" | "read"
  readonly pattern: string
  /** For the table in the docs. */
  readonly what: string
}

const right = (role: TopicRole, may: "write" | "read", pattern: string, what: string): TopicRight => ({
  role,
  may,
  pattern,
  what
})

export const topicRights: ReadonlyArray<TopicRight> = [
  right("agent", "write", "%u/public/#", "its own public topics"),
  right("agent", "write", "+/public", "anybody's public inbox"),
  right("agent", "write", "+/public/pingreq", "questions whether somebody is there"),
  right("agent", "write", "+/public/pingack", "answers to such questions"),
  right("agent", "write", `${brokerServices}/handshake`, "its keys, for broker services"),
  right("agent", "write", `${brokerServices}/status`, "whether it is there"),
  right("agent", "write", `${brokerServices}/protected`, "signed messages, to be verified and passed on"),
  right("agent", "write", `${brokerServices}/private`, "sealed messages, to be verified and passed on"),
  right("agent", "read", "%u/#", "its own inboxes"),
  right("agent", "read", "+/public/#", "everybody's public topics"),
  right("agent", "read", `${brokerServices}/discovery`, "the list of agents"),
  right("stranger", "write", "%u/public/handshake", "the keys it says are its own"),
  right("stranger", "write", `${brokerServices}/handshake`, "its keys, for broker services"),
  right("stranger", "read", "%u/handshake", "the answer to them"),
  right("services", "write", "#", "everything"),
  right("services", "read", "#", "everything")
]

/** Whether every topic that `filter` takes in is taken in by `pattern` too. Both are lists of levels. */
const covers = (pattern: ReadonlyArray<string>, filter: ReadonlyArray<string>): boolean => {
  for (let index = 0; index < pattern.length; index++) {
    // "a/#" takes in "a" as well (MQTT 3.1.1, 4.7.1.2).
    if (pattern[index] === "#") return filter.length >= index
    const level = filter[index]
    if (level === undefined || level === "#") return false
    if (pattern[index] !== "+" && pattern[index] !== level) return false
  }
  return filter.length === pattern.length
}

const levels = (text: string): ReadonlyArray<string> => text.split("/")

const isCovered = (
  role: TopicRole,
  may: "write" | "read",
  name: string,
  root: string,
  topic: string
): boolean => {
  if (!topic.startsWith(`${root}/`)) return false
  const rest = levels(topic.slice(root.length + 1))
  return topicRights.some(
    (each) =>
      each.role === role && each.may === may && covers(levels(each.pattern.replaceAll("%u", name)), rest)
  )
}

/** Whether somebody may publish to a topic. Topics below its own `public` need not be inboxes. */
export const mayWrite = (role: TopicRole, name: string, root: string, topic: string): boolean =>
  isCovered(role, "write", name, root, topic)

/** Whether somebody may subscribe to a filter: all that it takes in must be theirs to read. */
export const mayRead = (role: TopicRole, name: string, root: string, filter: string): boolean =>
  isCovered(role, "read", name, root, filter)

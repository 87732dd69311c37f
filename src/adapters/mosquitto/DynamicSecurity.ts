/**
 * Rights and accounts as Mosquitto's dynamic security plugin takes them, over MQTT and at once: made from the same table that
 * the embedded broker asks (`schemas/TopicRights`). Pure functions. The plugin's own description:
 * https://mosquitto.org/documentation/dynamic-security/
 *
 * Each agent has a role of its own, since Mosquitto 2.0 knows no `%u` in roles, and an account that is good for its name as
 * client id alone: otherwise whoever has an account could take another's session over.
 *
 * @module
 */
import { type TopicRole, topicRights } from "../../schemas/TopicRights.ts"
import type { AgentName } from "../../schemas/Topics.ts"

/** Where the plugin is asked, and where it answers whoever asked. */
export const controlTopic = "$CONTROL/dynamic-security/v1"
export const controlAnswers = `${controlTopic}/response`
/** Seconds since Mosquitto was started; told every ten seconds. */
export const uptimeTopic = "$SYS/broker/uptime"
/** How many messages were lost because queues were full. */
export const droppedTopic = "$SYS/broker/publish/messages/dropped"

/** By it accounts of agents are told from those that somebody else made. */
export const agentMark = "postern-agent"

/** What a role may do. */
export interface Acl {
  readonly acltype: "publishClientSend" | "publishClientReceive" | "subscribePattern"
  readonly topic: string
  readonly allow: boolean
  readonly priority: number
}

const allow = (acltype: Acl["acltype"], topic: string): Acl => ({
  acltype,
  topic,
  allow: true,
  priority: 0
})

/** To read is to subscribe, and to be handed what was subscribed: a session may be older than the rights. */
const reading = (topic: string): ReadonlyArray<Acl> => [
  allow("subscribePattern", topic),
  allow("publishClientReceive", topic)
]

/** The rights of a role, for who has this name. */
export const aclsOf = (role: TopicRole, name: string, root: string): ReadonlyArray<Acl> =>
  topicRights
    .filter((each) => each.role === role)
    .flatMap(({ may, pattern }) => {
      const topic = `${root}/${pattern.replaceAll("%u", name)}`
      return may === "write" ? [allow("publishClientSend", topic)] : reading(topic)
    })

/** Broker services also keep the accounts, and see how Mosquitto does. */
export const servicesAcls = (name: string, root: string): ReadonlyArray<Acl> => [
  ...aclsOf("services", name, root),
  allow("publishClientSend", controlTopic),
  ...reading(controlAnswers),
  ...reading(uptimeTopic),
  ...reading(droppedTopic)
]

/** What nobody said anything about is forbidden. */
export const defaultAccess = {
  publishClientSend: false,
  publishClientReceive: false,
  subscribe: false,
  unsubscribe: true
} as const

/** A command to the plugin; it has many more members than are named here. */
export interface ControlCommand {
  readonly command: string
  readonly [member: string]: unknown
}

export const roleOf = (agent: AgentName): string => `${agentMark}-${agent}`

export interface NewAccount {
  readonly agent: AgentName
  readonly role: TopicRole
  readonly password: string
  /** Changes with all that makes the account. */
  readonly fingerprint: string
}

/** Removes an account: its connection ends at once. Its session stays. */
export const removal = (agent: AgentName): ReadonlyArray<ControlCommand> => [
  { command: "deleteClient", username: agent },
  { command: "deleteRole", rolename: roleOf(agent) }
]

/** Makes an account, in the place of an older one. */
export const creation = (account: NewAccount, root: string): ReadonlyArray<ControlCommand> => [
  ...removal(account.agent),
  {
    command: "createRole",
    rolename: roleOf(account.agent),
    acls: aclsOf(account.role, account.agent, root)
  },
  {
    command: "createClient",
    username: account.agent,
    clientid: account.agent,
    password: account.password,
    textname: agentMark,
    textdescription: account.fingerprint,
    roles: [{ rolename: roleOf(account.agent), priority: 0 }]
  }
]

/** What a command that removes may answer where nothing was there. */
export const isAbsence = (error: string): boolean => /not found$/i.test(error)

/**
 * What a doctor looks at where a server carries messages between devices.
 *
 * @module
 */
import { Option, Schema } from "effect"
import { requirement } from "../../adapters/doctor/Findings.ts"
import type { Finding } from "../../schemas/Finding.ts"
import { MessagingStatus } from "../../schemas/MessagingViews.ts"
import type { ServerConfig } from "../../schemas/ServerConfig.ts"

const Word = Schema.Struct({ messaging: Schema.NullOr(MessagingStatus) })
const decodeWord = Schema.decodeUnknownOption(Word)

const brokerFinding = ({ agents, broker }: MessagingStatus): Finding => {
  const is = requirement("messaging.broker", "an MQTT broker, where devices are agents")
  if (broker.state === "open")
    return is.ok(`${broker.connected ?? 0} connections, ${agents.C + agents.DG + agents.DU} agents`)
  return is.degraded(
    "it is down: devices cannot write to each other, and what they have written waits with them",
    "look into the server's log for what the broker says"
  )
}

const rootFinding = ({ in_root, signing_key }: MessagingStatus): Finding => {
  const is = requirement("messaging.root", "the key of broker services in the trust root")
  if (in_root) return is.ok(signing_key)
  return is.degraded(
    `the trust root does not name ${signing_key}: no agent believes this server's broker services`,
    "on the operator's machine: postern keys root draft next.json --broker-services server, postern keys root sign next.json, postern keys root publish next.json"
  )
}

const policyFinding = ({ messaging }: Pick<ServerConfig, "messaging">): Finding => {
  const is = requirement("messaging.policy", "rules by which devices may write to each other")
  const { length } = messaging.policy
  return length > 0
    ? is.ok(`${length} of them`)
    : is.degraded("there is none: nobody may write to anybody", "set messaging.policy, or leave it out")
}

/** All about messages; nothing where the configuration does not want them, or the server does not run. */
export const messagingFindings = (
  config: Pick<ServerConfig, "messaging">,
  running: { readonly answer: unknown } | null
): ReadonlyArray<Finding> => {
  if (!config.messaging.enabled || running === null) return []
  const word = decodeWord(running.answer)
  const status = Option.isSome(word) ? word.value.messaging : null
  if (status === null) {
    const is = requirement("messaging.broker", "an MQTT broker, where devices are agents")
    return [
      is.degraded(
        "the server carries no messages, though messaging.enabled is on",
        "look into the server's log for why, then start the server again"
      )
    ]
  }
  return [brokerFinding(status), rootFinding(status), policyFinding(config)]
}

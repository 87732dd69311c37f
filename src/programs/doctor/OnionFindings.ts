/**
 * What a doctor looks at where a server is to be reached over Tor.
 *
 * @module
 */
import { Option, Schema } from "effect"
import { requirement } from "../../adapters/doctor/Findings.ts"
import type { Finding } from "../../schemas/Finding.ts"
import { OnionStatus } from "../../schemas/OnionStatus.ts"
import type { ServerConfig } from "../../schemas/ServerConfig.ts"
import type { TrustRoot } from "../../schemas/TrustRoot.ts"

const Word = Schema.Struct({ onion: Schema.NullOr(OnionStatus) })
const decodeWord = Schema.decodeUnknownOption(Word)

/** What the running server says of its onion services; null where it says nothing. */
export const onionWord = (answer: unknown): OnionStatus | null => {
  const word = decodeWord(answer)
  return Option.isSome(word) ? word.value.onion : null
}

const torFinding = ({ tor }: OnionStatus): Finding => {
  const is = requirement("onion.tor", "tor, with a way into its network")
  if (tor.progress === 100 && tor.warning === null)
    return is.ok(tor.own ? "its own" : "one that runs already")
  return is.degraded(
    `${tor.progress} %: ${tor.summary}${tor.warning === null ? "" : ` (${tor.warning})`}`,
    tor.own
      ? "apt install tor, if it is missing; look into the server's log for what tor says; behind a firewall, set onion.bridges or onion.reachable_ports (docs/tor.md)"
      : "look at the tor that onion.control names"
  )
}

const publishedFinding = ({ services }: OnionStatus): ReadonlyArray<Finding> => {
  const is = requirement("onion.published", "an onion service that devices find")
  const device = services.find(({ service }) => service === "device")
  if (device === undefined) return []
  const { address, descriptor, introduction_points: points } = device
  if (descriptor === "published" && points === 0)
    return [
      is.degraded(
        `${address} is published, but has no introduction points: nobody gets there`,
        "look whether the network is there, and into the server's log for what tor says"
      )
    ]
  return [
    descriptor === "published"
      ? is.ok(points === null ? address : `${address}, ${points} introduction points`)
      : is.degraded(
          `${device.address} is not published (${device.descriptor})`,
          "wait a minute; then look into the server's log for what tor says"
        )
  ]
}

/** Whether devices learn of the address. */
const namedFinding = (
  { services }: OnionStatus,
  root: TrustRoot | null,
  id: string | null
): ReadonlyArray<Finding> => {
  const is = requirement("onion.root", "the onion address in the trust root")
  const address = services.find(({ service }) => service === "device")?.address
  const known = root?.servers.find((server) => server.id === id)?.addresses
  if (address === undefined || known === undefined) return []
  const all = [...known, address].map((each) => `--address ${each}`).join(" ")
  return [
    known.includes(address)
      ? is.ok(address)
      : is.degraded(
          `devices do not learn of ${address}`,
          `postern keys root draft next.json ${all}, then sign and publish it`
        )
  ]
}

/** All about Tor; nothing where the configuration does not want it. */
export const onionFindings = (
  config: Pick<ServerConfig, "onion">,
  answer: unknown,
  root: TrustRoot | null,
  id: string | null
): ReadonlyArray<Finding> => {
  if (!config.onion.enabled) return []
  const status = onionWord(answer)
  if (status === null) {
    const is = requirement("onion.tor", "tor, with a way into its network")
    return [is.degraded("the server does not run, or does not tell", "start the server, then look again")]
  }
  return [torFinding(status), ...publishedFinding(status), ...namedFinding(status, root, id)]
}

/** What a doctor finds of a device's way to its server. */
import { Effect } from "effect"
import { requirement } from "../../adapters/doctor/Findings.ts"
import { reachChecks } from "../../adapters/doctor/ReachChecks.ts"
import type { ClientConfig } from "../../schemas/ClientConfig.ts"
import type { Finding } from "../../schemas/Finding.ts"
import { isReachedUnseen, routesBeside } from "../client/Reach.ts"

const mend =
  "check the server (postern doctor there), its address in the trust root, and what filters between"

const is = requirement("server.reached", "a server that answers")

/** What the client itself tells of addresses that nobody else can reach as it does. */
const unseenFinding = (
  { sleep_maximum_ms: sleepMs }: Pick<ClientConfig, "sleep_maximum_ms">,
  unseen: ReadonlyArray<string>,
  lastPollAtMs: number | null,
  nowMs: number
): Finding => {
  const agoMs = lastPollAtMs === null ? null : Math.max(0, nowMs - lastPollAtMs)
  // A client that sleeps as long as it may has not failed yet.
  if (agoMs !== null && agoMs < 2 * sleepMs)
    return is.ok(`the client's last poll was answered ${Math.round(agoMs / 1_000)} seconds ago`)
  return is.degraded(
    `not looked at: ${unseen.join(", ")}. By which SOCKS port the client gets there, tor.control alone does not say`,
    "start the client, and see how its polls go; or name that Tor's SOCKS port too (tor.socks)"
  )
}

/** Asks the addresses. `lastPollAtMs`: when the running client's poll was answered last, if it tells. */
export const reachFindings = (
  config: ClientConfig,
  addresses: ReadonlyArray<string>,
  lastPollAtMs: number | null,
  nowMs: number
): Effect.Effect<ReadonlyArray<Finding>> => {
  if (addresses.length === 0)
    return Effect.succeed([
      is.failed(
        "no server is known yet",
        "start the client with an invitation (postern invite prints the command)"
      )
    ])
  const unseen = addresses.filter((address) => isReachedUnseen(config, address))
  const seen = addresses.filter((address) => !unseen.includes(address))
  const asked = seen.length === 0 ? Effect.succeed([]) : reachChecks(seen, mend, routesBeside(config))
  if (unseen.length === 0) return asked
  const told = unseenFinding(config, unseen, lastPollAtMs, nowMs)
  return Effect.map(asked, (findings) => [
    ...findings.filter(({ id, state }) => id !== told.id || state === "ok"),
    ...(findings.some(({ id, state }) => id === told.id && state === "ok") ? [] : [told])
  ])
}

/**
 * The trust root and those who lag behind it, for people and for programs.
 *
 * @module
 */
import { Effect, Option } from "effect"
import { ManagementClient } from "../../adapters/operator/ManagementClient.ts"
import type { TrustedRoot } from "../../adapters/operator/TrustStore.ts"
import { roleTexts } from "../../crypto/RootEdits.ts"
import { Limits } from "../../schemas/Limits.ts"
import type { LaggardPage } from "../../schemas/ManagementApi.ts"
import { expiryWarning } from "../../schemas/RootExpiry.ts"
import type { RoleName, TrustRoot } from "../../schemas/TrustRoot.ts"
import { chosenServer, withClientOf } from "./Settings.ts"
import { counted, showAge, showDuration, showTime, visible } from "./Text.ts"

/** So many laggards are named; a program gets all that fit on a page. */
const namedLaggards = 5

/** Devices that are not known to hold the newest root, by the server's word. */
export const laggards = (all: boolean) =>
  Effect.flatMap(ManagementClient, (client) =>
    client.call("ask which devices lag behind", ({ server }) =>
      server.laggards({ query: { limit: all ? Limits.pageItems : namedLaggards } })
    )
  )

/** The same of the server that is logged in to; undefined where there is none, or it is not reached. */
export const serverLaggards = (all: boolean) =>
  Effect.gen(function* () {
    const entry = yield* Effect.option(chosenServer)
    if (Option.isNone(entry)) return undefined
    return Option.getOrUndefined(yield* Effect.option(withClientOf(entry.value)(laggards(all))))
  })

/** A sentence about who lags behind; undefined where nobody does. */
export const laggardText = (
  { count, devices, root_version }: LaggardPage,
  nowMs: number
): string | undefined => {
  if (count === 0) return undefined
  const named = devices
    .slice(0, namedLaggards)
    .map(({ device, last_seen_at_ms, name, root_version: version }) => {
      const at = version === null ? "no version told" : `at ${version}`
      const seen = last_seen_at_ms === null ? "never seen" : `seen ${showAge(last_seen_at_ms, nowMs)}`
      return `${visible(name ?? device)} (${at}, ${seen})`
    })
  const more = count > named.length ? ` and ${count - named.length} more` : ""
  return `${counted(count, "device has", "devices have")} not reached version ${root_version ?? 0} of the trust root: ${named.join(", ")}${more}`
}

const shownRoles = ["root", "operators", "servers", "broker_services"] as const

const roleLines = (root: TrustRoot, name: RoleName): ReadonlyArray<string> => {
  const { keys, threshold } = root.roles[name]
  if (keys.length === 0) return []
  const heading =
    name === "servers"
      ? `${roleTexts[name]}s:`
      : `${roleTexts[name]}s, ${threshold} of ${keys.length} must sign:`
  return [heading, ...keys.map((key) => `  ${root.keys[key]?.label ?? "?"}  ${key}`)]
}

/** The trust root for people. */
export const rootLines = (
  { firstDigest, root }: TrustedRoot,
  behind: LaggardPage | undefined,
  nowMs: number
): string => {
  const leftMs = root.expires_at_ms - nowMs
  const left = leftMs > 0 ? `in ${showDuration(leftMs)}` : `${showDuration(-leftMs)} ago`
  const lagging = behind === undefined ? undefined : laggardText(behind, nowMs)
  const warning = expiryWarning(root, nowMs)?.text
  return [
    `Version ${root.version} of the trust root, issued ${showTime(root.issued_at_ms)}, until ${showTime(root.expires_at_ms)} (${left})`,
    `first root ${firstDigest}`,
    ...shownRoles.flatMap((name) => roleLines(root, name)),
    "servers that carry it:",
    ...root.servers.map(({ addresses, id }) => `  ${id} at ${addresses.join(" ")}`),
    ...(behind === undefined
      ? ["devices: no server was asked"]
      : [
          lagging === undefined ? "devices: all have this version, as far as the server knows" : `${lagging}.`
        ]),
    ...(warning === undefined ? [] : [warning]),
    ""
  ].join("\n")
}

/** The trust root for programs. */
export const rootJson = ({ firstDigest, root }: TrustedRoot, behind: LaggardPage | undefined) => ({
  first_digest: firstDigest,
  root,
  laggards: behind ?? null
})

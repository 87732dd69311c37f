/**
 * How a server's onion services are shown, and what about them needs the operator.
 *
 * @module
 */
import type { ServerStatus } from "../../schemas/ManagementApi.ts"
import type { OnionServiceStatus, OnionStatus } from "../../schemas/OnionStatus.ts"
import type { TrustRoot } from "../../schemas/TrustRoot.ts"
import { showAge, visible } from "./Text.ts"

const counted = (count: number | null, one: string, many: string): ReadonlyArray<string> =>
  count === null ? [] : [`${count} ${count === 1 ? one : many}`]

const serviceLine = (service: OnionServiceStatus, nowMs: number): string => {
  const { authorised, circuits, descriptor, failures, introduction_points, uploaded_at_ms } = service
  const state = descriptor === "off" ? "not published" : descriptor
  const words =
    descriptor === "off"
      ? []
      : [
          ...(uploaded_at_ms === null ? [] : [`uploaded ${showAge(uploaded_at_ms, nowMs)}`]),
          ...(failures > 0 ? [`${failures} uploads failed`] : []),
          ...counted(introduction_points, "introduction point", "introduction points"),
          ...counted(circuits, "open circuit", "open circuits")
        ]
  return [
    `${service.address} ${state}`,
    ...words,
    ...counted(authorised, "key authorised", "keys authorised")
  ].join(", ")
}

const torLine = ({ own, progress, summary, warning }: OnionStatus["tor"]): string => {
  const isReady = progress === 100 && warning === null
  const how = isReady ? "ready" : progress === 100 ? "not ready" : `${progress} %: ${visible(summary)}`
  return `${how}${own ? "" : ", not started by the server"}${warning === null ? "" : `. ${visible(warning)}`}`
}

/** Lines of `postern status`, by the server's clock; none where the server is not reached over Tor. */
export const onionLines = ({
  onion,
  time_ms: nowMs
}: Pick<ServerStatus, "onion" | "time_ms">): ReadonlyArray<readonly [string, string]> =>
  onion === null
    ? []
    : [
        ["tor", torLine(onion.tor)],
        ...onion.services.map((service) => [`onion ${service.service}`, serviceLine(service, nowMs)] as const)
      ]

/** A descriptor that was published once says nothing of now: introduction points and tor's circuits do. */
const isLost = (tor: OnionStatus["tor"], { descriptor, introduction_points }: OnionServiceStatus): boolean =>
  tor.progress < 100 ||
  tor.warning !== null ||
  descriptor === "failed" ||
  (descriptor === "published" && introduction_points === 0)

/** What about the services needs the operator: an address that no device learns of, a server that is not reached. */
export const onionNotes = (
  { onion, server }: Pick<ServerStatus, "onion" | "server">,
  root: TrustRoot | undefined
): ReadonlyArray<string> => {
  const device = onion?.services.find(({ service }) => service === "device")
  if (onion === null || device === undefined) return []
  const known = root?.servers.find(({ id }) => id === server)?.addresses ?? []
  const missing = root !== undefined && !known.includes(device.address)
  const all = [...known, device.address].map((address) => `--address ${address}`).join(" ")
  return [
    ...(missing
      ? [
          `Devices do not learn that the server is at ${device.address}: the trust root does not name it. postern keys root draft next.json ${all}, postern keys root sign next.json, postern keys root publish next.json`
        ]
      : []),
    ...(isLost(onion.tor, device)
      ? ["The server is not reached over Tor now: look into its log, and at postern doctor on its machine."]
      : [])
  ]
}

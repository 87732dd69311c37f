/** The paths of the device API, and how large a body each takes. */
import { Schema } from "effect"
import { deviceApiPath } from "../../schemas/DeviceApi.ts"
import { Digest, OrderId } from "../../schemas/Ids.ts"
import { Limits } from "../../schemas/Limits.ts"
import type { ApiRequest } from "./Exchange.ts"

export type DeviceRoute =
  | { readonly name: "identity" }
  | { readonly name: "roots"; readonly from: number }
  | { readonly name: "enrolment" | "poll" | "progress" | "receipts" | "health" | "messaging" | "mqtt" }
  | {
      readonly name: "payload"
      readonly digest: Digest
      readonly offset: number
      /** Before which byte it is to end; null for its own end. */
      readonly until: number | null
    }
  | { readonly name: "output"; readonly order: OrderId; readonly sequence: number }
  | {
      readonly name: "artifacts"
      readonly order: OrderId
      readonly offset: number
      readonly totalBytes: number
    }

/** Largest body of each route, in bytes. */
const bodyBytes: Record<DeviceRoute["name"], number> = {
  identity: 0,
  roots: 0,
  enrolment: Limits.envelopeBytes * 2,
  poll: 128 * 1024,
  progress: 128 * 1024,
  receipts: Limits.requestBodyBytes,
  health: 64 * 1024,
  messaging: 0,
  mqtt: 0,
  payload: 0,
  output: Limits.outputChunkEncryptedBytes,
  artifacts: Limits.blockBytes
}

export const maximumBodyBytes = (route: DeviceRoute): number => bodyBytes[route.name]

const isDigest = Schema.is(Digest)
const isOrder = Schema.is(OrderId)

/** A plain decimal whole number, or undefined. */
export const wholeNumber = (text: string | null | undefined): number | undefined => {
  if (text === null || text === undefined || !/^(?:0|[1-9][0-9]{0,14})$/.test(text)) return undefined
  return Number(text)
}

/**
 * The part that a Range header asks for, `until` its end: only `bytes=N-` and `bytes=N-M` are known; anything else asks for
 * the whole, as RFC 9110 allows.
 */
const rangeOf = (range: string | undefined): { readonly offset: number; readonly until: number | null } => {
  const [, first, last] = /^bytes=([0-9]+)-([0-9]*)$/.exec(range ?? "") ?? []
  const offset = wholeNumber(first)
  const end = last === "" ? null : wholeNumber(last)
  return offset === undefined || end === undefined || (end !== null && end < offset)
    ? { offset: 0, until: null }
    : { offset, until: end === null ? null : end + 1 }
}

const withoutParameters = {
  "GET /identity": "identity",
  "POST /enrolment": "enrolment",
  "POST /poll": "poll",
  "POST /progress": "progress",
  "POST /receipts": "receipts",
  "POST /health": "health",
  "GET /messaging": "messaging",
  "GET /mqtt": "mqtt"
} as const satisfies Record<string, DeviceRoute["name"]>

const orderRoute = (rest: string, query: URLSearchParams): DeviceRoute | undefined => {
  const [, order, part, sequenceText] =
    /^\/orders\/([^/]+)\/(output|artifacts)(?:\/([^/]+))?$/.exec(rest) ?? []
  if (!isOrder(order)) return undefined
  if (part === "output") {
    const sequence = wholeNumber(sequenceText)
    return sequence === undefined ? undefined : { name: "output", order, sequence }
  }
  const offset = wholeNumber(query.get("offset"))
  const totalBytes = wholeNumber(query.get("total"))
  return sequenceText === undefined && offset !== undefined && totalBytes !== undefined
    ? { name: "artifacts", order, offset, totalBytes }
    : undefined
}

/** The route of a request, or undefined where there is none. Needs no body, so that a gateway can bound it first. */
export const routeOf = (
  request: Pick<ApiRequest, "method" | "path" | "query" | "headers">
): DeviceRoute | undefined => {
  const { headers, method, path } = request
  if (!path.startsWith(deviceApiPath)) return undefined
  const rest = path.slice(deviceApiPath.length)
  const call = `${method} ${rest}`
  if (call in withoutParameters) return { name: withoutParameters[call as keyof typeof withoutParameters] }
  const query = new URLSearchParams(request.query)
  if (call === "GET /roots") {
    const from = wholeNumber(query.get("from"))
    return from === undefined || from < 1 ? undefined : { name: "roots", from }
  }
  if (method === "GET" && rest.startsWith("/payloads/")) {
    const digest = rest.slice("/payloads/".length).replace(/^sha256%3A/i, "sha256:")
    return isDigest(digest) ? { name: "payload", digest, ...rangeOf(headers["range"]) } : undefined
  }
  return method === "PUT" ? orderRoute(rest, query) : undefined
}

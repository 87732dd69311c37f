/**
 * Who answers: whether a host takes connections at all, and whether it is somebody else who answers in a server's place.
 * A captive portal shows in what comes from the server's own address: a page or a redirect where our server has
 * neither, or a certificate for another name. Nobody else is asked, unless a page for it is configured.
 *
 * @module
 */
import { type IncomingMessage, request } from "node:http"
import { connect, isIP } from "node:net"
import { checkServerIdentity, type TLSSocket, connect as tlsConnect } from "node:tls"
import { deviceApiPath } from "../../schemas/DeviceApi.ts"
import { software } from "../../schemas/Version.ts"
import type { Resolved, Target, Trouble } from "./Targets.ts"
import { targetOfOrigin, withLimit } from "./Targets.ts"

/** Connecting and the head of an answer together. */
const answerMs = 4_000
const headBytes = 16 * 1024
const maximumAddresses = 8

/** Where a server should answer, and how it is spoken to. */
export interface ServerTarget extends Target {
  readonly origin: string
}

/** Who answered at a server's address. */
export type Answer =
  /** Ours, as far as can be told without keys. */
  | { readonly _tag: "Good" }
  | { readonly _tag: "Portal"; readonly detail: string }
  /** It has a certificate that is not valid yet: by this machine's clock. */
  | { readonly _tag: "Clock"; readonly detail: string }
  | { readonly _tag: "None"; readonly detail: string }

const good: Answer = { _tag: "Good" }
const none = (detail: string): Answer => ({ _tag: "None", detail })
const portal = (detail: string): Answer => ({ _tag: "Portal", detail })

const nameOf = ({ host, port }: Target): string => `${host}:${port}`
const late = (target: Target): string => `${nameOf(target)} did not answer within ${answerMs} ms`

/** The server an origin names; undefined for what is no origin. */
export const serverOfOrigin = (origin: string): ServerTarget | undefined => {
  const target = targetOfOrigin(origin)
  return target === undefined ? undefined : { ...target, origin }
}

/** Opens a connection and closes it. */
const connectionTrouble = (target: Target, address: string): Promise<Trouble> =>
  new Promise((resolve) => {
    const socket = connect({ host: address, port: target.port })
    const done = (trouble: Trouble) => {
      clearTimeout(timer)
      socket.destroy()
      resolve(trouble)
    }
    const timer = setTimeout(() => done(late(target)), answerMs)
    socket.on("error", (error) => done(`${nameOf(target)}: ${error.message}`))
    socket.once("connect", () => done(undefined))
  })

/** Resolves as soon as one is good, else with the first trouble. */
const firstGood = async (troubles: ReadonlyArray<Promise<Trouble>>): Promise<Trouble> => {
  const some = troubles.map(async (trouble) => {
    const found = await trouble
    if (found !== undefined) throw new Error(found)
  })
  return Promise.any(some).then(
    () => undefined,
    async () => (await Promise.all(troubles)).find((trouble) => trouble !== undefined)
  )
}

/** Opens a connection to one of the addresses; the last failure where none answers. */
const reach = (target: Resolved): Promise<Trouble> =>
  target.addresses.length === 0
    ? Promise.resolve(`the name ${target.host} is not known`)
    : firstGood(
        target.addresses.slice(0, maximumAddresses).map((address) => connectionTrouble(target, address))
      )

/** Whether any takes a connection. Nobody to reach is no trouble. */
export const anyReached = async (targets: ReadonlyArray<Resolved>): Promise<Trouble> =>
  targets.length === 0 ? undefined : firstGood(targets.map(reach))

interface Head {
  readonly status: number
  readonly location: string
  readonly type: string
}

/** Asks for a page and reads the head of the answer alone. Follows no redirect. */
const headOf = (target: Target, address: string, authority: string, path: string): Promise<Head | string> =>
  new Promise((resolve) => {
    const asking = request({
      host: address,
      port: target.port,
      path,
      agent: false,
      maxHeaderSize: headBytes,
      headers: { host: authority, "user-agent": software, accept: "application/json" }
    })
    const done = (found: Head | string) => {
      clearTimeout(timer)
      asking.destroy()
      resolve(found)
    }
    const timer = setTimeout(() => done(late(target)), answerMs)
    asking.on("error", (error) => done(`${nameOf(target)}: ${error.message}`))
    asking.once("response", ({ headers, statusCode = 0 }: IncomingMessage) =>
      done({ status: statusCode, location: headers.location ?? "", type: headers["content-type"] ?? "" })
    )
    asking.end()
  })

/** A gateway that sends plain requests on to TLS at the same host is the server's own. */
const isOwnRedirect = (location: string, { host }: Target): boolean => {
  const to = URL.parse(location)
  return to !== null && to.protocol === "https:" && to.hostname.replace(/^\[|\]$/g, "") === host
}

const isRedirect = (status: number): boolean => status >= 300 && status < 400 && status !== 304

/** The status of RFC 6585 that a portal should give. */
const loginRequired = 511

/** What our server never answers; undefined for what it might. */
const portalIn = (head: Head, target: Target): Trouble => {
  if (head.status === loginRequired) return `${nameOf(target)} answers that a login is required (511)`
  if (isRedirect(head.status) && !isOwnRedirect(head.location, target))
    return `${nameOf(target)} answers with a redirect to ${head.location === "" ? "nowhere" : head.location}`
  if (head.status === 200 && /^text\/html\b/i.test(head.type))
    return `${nameOf(target)} answers with a web page`
  return undefined
}

const plainAnswer = async (target: ServerTarget, address: string): Promise<Answer> => {
  const authority = new URL(target.origin).host
  const head = await headOf(target, address, authority, `${deviceApiPath}/identity`)
  if (typeof head === "string") return none(head)
  const trouble = portalIn(head, target)
  return trouble === undefined ? good : portal(trouble)
}

const certificateAnswer = (target: ServerTarget, socket: TLSSocket): Answer => {
  const certificate = socket.getPeerCertificate()
  const strange = checkServerIdentity(target.host, certificate)
  if (strange !== undefined) {
    const subject = certificate.subjectaltname ?? certificate.subject?.CN ?? "nobody"
    return portal(`${nameOf(target)} answers with a certificate for ${subject}`)
  }
  const problem = socket.authorizationError as unknown
  if (problem === undefined || problem === null) return good
  const text = problem instanceof Error ? problem.message : String(problem)
  return text === "CERT_NOT_YET_VALID"
    ? {
        _tag: "Clock",
        detail: `the certificate of ${nameOf(target)} is valid from ${certificate.valid_from} on`
      }
    : none(`the certificate of ${nameOf(target)} is not accepted: ${text}`)
}

const tlsAnswer = (target: ServerTarget, address: string): Promise<Answer> =>
  new Promise((resolve) => {
    const socket = tlsConnect({
      host: address,
      port: target.port,
      ...(isIP(target.host) === 0 ? { servername: target.host } : {}),
      // Looked at below: a wrong certificate is what tells of a portal. Nothing is sent over this connection.
      rejectUnauthorized: false
    })
    const done = (answer: Answer) => {
      clearTimeout(timer)
      socket.destroy()
      resolve(answer)
    }
    const timer = setTimeout(() => done(none(late(target))), answerMs)
    socket.on("error", (error) => done(none(`${nameOf(target)}: ${error.message}`)))
    socket.once("secureConnect", () => done(certificateAnswer(target, socket)))
  })

const answerOf = async (target: ServerTarget & Resolved): Promise<ReadonlyArray<Answer>> => {
  if (target.addresses.length === 0) return [none(`the name ${target.host} is not known`)]
  const ask = target.origin.startsWith("https:") ? tlsAnswer : plainAnswer
  return Promise.all(target.addresses.slice(0, maximumAddresses).map((address) => ask(target, address)))
}

/** Who answers at a server's addresses: one that is ours is enough, and what tells most comes before what tells least. */
export const serverAnswer = async (targets: ReadonlyArray<ServerTarget & Resolved>): Promise<Answer> => {
  if (targets.length === 0) return good
  const all = (await Promise.all(targets.map(answerOf))).flat()
  for (const tag of ["Good", "Portal", "Clock"] as const) {
    const found = all.find(({ _tag }) => _tag === tag)
    if (found !== undefined) return found
  }
  return all[0] ?? good
}

/** What the configured page tells of a portal: it answers 204 where the network is open. */
export const pageTrouble = async (url: string, target: Resolved): Promise<Trouble> => {
  const [address] = target.addresses
  if (address === undefined) return undefined
  const { host, pathname, search } = new URL(url)
  const head = await withLimit(headOf(target, address, host, `${pathname}${search}`), answerMs, "")
  if (typeof head === "string" || head.status === 204) return undefined
  const said = isRedirect(head.status) ? `with a redirect to ${head.location}` : `${head.status}`
  const isPortal = isRedirect(head.status) || head.status === loginRequired || head.status === 200
  return isPortal ? `${nameOf(target)} answers ${said}, where 204 was expected` : undefined
}

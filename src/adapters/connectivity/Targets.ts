/**
 * Hosts to look for, and the addresses their names have.
 *
 * @module
 */
import { lookup } from "node:dns/promises"
import { isIP } from "node:net"

/** Where somebody should answer. */
export interface Target {
  readonly host: string
  readonly port: number
}

/** With the addresses its name has; none where the name is not known. */
export interface Resolved extends Target {
  readonly addresses: ReadonlyArray<string>
}

/** `undefined` where a layer is good, else what was seen. */
export type Trouble = string | undefined

const lookupMs = 4_000

/** Host and port of an origin; undefined for what is none. */
export const targetOfOrigin = (origin: string): Target | undefined => {
  const url = URL.parse(origin)
  if (url === null || url.hostname === "") return undefined
  const port = url.port === "" ? (url.protocol === "https:" ? 443 : 80) : Number(url.port)
  return { host: url.hostname.replace(/^\[|\]$/g, ""), port }
}

/** `host:port` or `[address]:port` as a target. */
export const targetOfHost = (text: string): Target | undefined => targetOfOrigin(`tcp://${text}`)

/** Whether it is on this very machine. */
export const isLocal = ({ host }: Target): boolean =>
  host === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127."))

/** What the work gives, or `otherwise` when it takes too long. */
export const withLimit = async <A>(work: Promise<A>, limitMs: number, otherwise: A): Promise<A> => {
  let timer: NodeJS.Timeout | undefined
  const limit = new Promise<A>((resolve) => {
    timer = setTimeout(() => resolve(otherwise), limitMs)
  })
  try {
    return await Promise.race([work, limit])
  } finally {
    clearTimeout(timer)
  }
}

/**
 * Resolves names as every other connection of this program does (hosts file included). That runs in one of few threads
 * and cannot be stopped, so a name that was not answered yet is not asked for again.
 */
export const makeResolver = () => {
  const pending = new Map<string, Promise<ReadonlyArray<string>>>()
  const ask = (host: string): Promise<ReadonlyArray<string>> => {
    const asked = pending.get(host)
    if (asked !== undefined) return asked
    const answer = lookup(host, { all: true })
      .then((found) => found.map(({ address }) => address))
      .catch(() => [])
      .finally(() => pending.delete(host))
    pending.set(host, answer)
    return answer
  }
  return async <T extends Target>(target: T): Promise<T & Resolved> => ({
    ...target,
    addresses: isIP(target.host) !== 0 ? [target.host] : await withLimit(ask(target.host), lookupMs, [])
  })
}

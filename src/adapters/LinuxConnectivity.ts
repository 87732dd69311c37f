/**
 * The port `Connectivity` on the real machine: interfaces from /sys, addresses and names as Node sees them, routes as the
 * kernel decides them (connecting a datagram socket sends nothing), hosts and server by opening a connection.
 *
 * @module
 */
import { createSocket } from "node:dgram"
import { lookup } from "node:dns/promises"
import { readdir } from "node:fs/promises"
import { connect, isIP } from "node:net"
import { networkInterfaces } from "node:os"
import { join } from "node:path"
import { Effect, Layer } from "effect"
import { Connectivity, connectivityWithinMs } from "../ports/Connectivity.ts"
import type { BrokenLayer, LinkFinding } from "../schemas/Connectivity.ts"
import { label, numberOf, textOf } from "./host/Reading.ts"

export interface LinuxConnectivityOptions {
  /** `host:port` of what should be reached where the network is good; none in a closed network. */
  readonly referenceHosts: ReadonlyArray<string>
  /** For tests: where /sys is. */
  readonly sys?: string
}

const lookupMs = 4_000
const connectMs = 4_000
/** The kernel's number for loopback interfaces. */
const loopbackType = 772
/** Addresses that stand for the world beyond the gateway (RFC 5737, RFC 3849): nothing is ever sent to them. */
const elsewhere = ["192.0.2.1", "2001:db8::1"]
const maximumTargets = 8

interface Target {
  readonly host: string
  readonly port: number
}

/** A target with the addresses its name has; none where the name is not known. */
interface Resolved extends Target {
  readonly addresses: ReadonlyArray<string>
}

/** `undefined` where a layer is good, else what was seen. */
type Trouble = string | undefined

/** Host and port of an origin; undefined for what is none. */
export const targetOfOrigin = (origin: string): Target | undefined => {
  const url = URL.parse(origin)
  if (url === null || url.hostname === "") return undefined
  const port = url.port === "" ? (url.protocol === "https:" ? 443 : 80) : Number(url.port)
  return { host: url.hostname.replace(/^\[|\]$/g, ""), port }
}

/** `host:port` or `[address]:port` as a target. */
export const targetOfHost = (text: string): Target | undefined => targetOfOrigin(`tcp://${text}`)

const isLocal = ({ host }: Target): boolean =>
  host === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127."))

const withLimit = async <A>(work: Promise<A>, limitMs: number, otherwise: A): Promise<A> => {
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

/** Interfaces but loopback, and those of them that carry a signal. */
const linkTrouble = async (sys: string): Promise<Trouble> => {
  const folder = join(sys, "class/net")
  const names = await readdir(folder).catch(() => [])
  const isOutward = await Promise.all(
    names.map(async (name) => (await numberOf(join(folder, name, "type"))) !== loopbackType)
  )
  const outward = names.filter((_, index) => isOutward[index] && names[index] !== "bonding_masters")
  const states = await Promise.all(outward.map((name) => textOf(join(folder, name, "operstate"), 32)))
  // Point-to-point interfaces do not know their state.
  if (states.some((state) => state === "up" || state === "unknown")) return undefined
  return outward.length === 0
    ? "there is no interface but loopback"
    : outward.map((name, index) => `${name} is ${states[index] ?? "unknown"}`).join(", ")
}

/** Whether any interface has an address that leads beyond its own wire. */
const addressTrouble = (): Trouble => {
  const outward = Object.entries(networkInterfaces()).flatMap(([name, addresses = []]) =>
    addresses.filter(({ internal }) => !internal).map(({ address }) => ({ name, address }))
  )
  if (outward.some(({ address }) => !/^(?:fe[89ab][0-9a-f]:|169\.254\.)/i.test(address))) return undefined
  return outward.length === 0
    ? "no interface has an address"
    : `only addresses of the wire itself: ${outward.map(({ address, name }) => `${name} ${address}`).join(", ")}`
}

/** Why the kernel knows no way to an address; undefined where it does. */
const routeTo = (address: string): Promise<Trouble> =>
  new Promise((resolve) => {
    const socket = createSocket(isIP(address) === 6 ? "udp6" : "udp4")
    const done = (trouble: Trouble) => {
      socket.removeAllListeners()
      socket.on("error", () => undefined)
      socket.close()
      resolve(trouble)
    }
    socket.once("error", (error) => done(`${address}: ${error.message}`))
    socket.once("connect", () => done(undefined))
    socket.connect(9, address)
  })

/** A way to one of the targets, or to the world beyond the gateway, is a way. Names that are not known lead nowhere. */
const routeTrouble = async (targets: ReadonlyArray<Resolved>): Promise<Trouble> => {
  const wanted = targets.flatMap(({ addresses }) => addresses).slice(0, maximumTargets)
  const found = await Promise.all([...wanted, ...elsewhere].map(routeTo))
  if (found.includes(undefined)) return undefined
  return wanted.length === 0
    ? "there is no default route"
    : `there is no default route, nor one to ${found[0]}`
}

/** Opens a connection to one of the addresses and closes it; the last failure where none answers. */
const reach = ({ addresses, host, port }: Resolved): Promise<Trouble> => {
  const one = (address: string): Promise<Trouble> =>
    new Promise((resolve) => {
      const socket = connect({ host: address, port })
      const done = (trouble: Trouble) => {
        clearTimeout(timer)
        socket.destroy()
        resolve(trouble)
      }
      const timer = setTimeout(() => done(`${host}:${port} did not answer within ${connectMs} ms`), connectMs)
      socket.on("error", (error) => done(`${host}:${port}: ${error.message}`))
      socket.once("connect", () => done(undefined))
    })
  if (addresses.length === 0) return Promise.resolve(`the name ${host} is not known`)
  return firstGood(addresses.slice(0, maximumTargets).map(one))
}

/** Resolves as soon as one is good, else with the first trouble. */
const firstGood = async (troubles: ReadonlyArray<Promise<Trouble>>): Promise<Trouble> => {
  const good = troubles.map(async (trouble) => {
    const found = await trouble
    if (found !== undefined) throw new Error(found)
  })
  return Promise.any(good).then(
    () => undefined,
    async () => (await Promise.all(troubles)).find((trouble) => trouble !== undefined)
  )
}

/**
 * Resolves names as every other connection of this program does (hosts file included). That runs in one of few threads
 * and cannot be stopped, so a name that was not answered yet is not asked for again.
 */
const makeResolver = () => {
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
  return async (target: Target): Promise<Resolved> => ({
    ...target,
    addresses: isIP(target.host) !== 0 ? [target.host] : await withLimit(ask(target.host), lookupMs, [])
  })
}

const nameTrouble = (servers: ReadonlyArray<Resolved>, references: ReadonlyArray<Resolved>): Trouble => {
  const isUnknown = (all: ReadonlyArray<Resolved>) =>
    all.length > 0 && all.every(({ addresses }) => addresses.length === 0)
  const unknown = [...servers, ...references].filter(({ addresses }) => addresses.length === 0)
  const names = [...new Set(unknown.map(({ host }) => host))].join(", ")
  return isUnknown(servers) || isUnknown(references) ? `not resolved: ${names}` : undefined
}

/** Nobody to reach is no trouble. */
const anyReached = (targets: ReadonlyArray<Resolved>): Promise<Trouble> | undefined =>
  targets.length === 0 ? undefined : firstGood(targets.map(reach))

/** A layer, and how to look at it. */
type Step = readonly [BrokenLayer, () => Trouble | Promise<Trouble>]

const finding = (layer: BrokenLayer, detail: string): LinkFinding => ({ layer, detail: label(detail, 200) })

const makeLook = (options: LinuxConnectivityOptions) => {
  const sys = options.sys ?? "/sys"
  const resolve = makeResolver()
  const references = options.referenceHosts
    .flatMap((text) => targetOfHost(text) ?? [])
    .slice(0, maximumTargets)
  return async (origins: ReadonlyArray<string>): Promise<LinkFinding> => {
    const servers = origins.flatMap((origin) => targetOfOrigin(origin) ?? []).slice(0, maximumTargets)
    // Asked for first, judged later: in a closed network a name may be all that tells of a way.
    const resolved = await Promise.all([...servers, ...references].map(resolve))
    const [toServer, toReferences] = [resolved.slice(0, servers.length), resolved.slice(servers.length)]
    const below: ReadonlyArray<Step> = [
      ["no_link", () => linkTrouble(sys)],
      ["no_address", addressTrouble],
      ["no_route", () => routeTrouble(resolved)]
    ]
    const above: ReadonlyArray<Step> = [
      ["no_name_resolution", () => nameTrouble(toServer, toReferences)],
      ["no_reference_host", () => anyReached(toReferences)],
      ["server_unreachable", () => anyReached(toServer)]
    ]
    // A server on this very machine needs no network.
    for (const [layer, look] of servers.some(isLocal) ? above : [...below, ...above]) {
      const trouble = await look()
      if (trouble !== undefined) return finding(layer, trouble)
    }
    return { layer: "ok", detail: servers.length === 0 ? "no server is known" : "" }
  }
}

/** Looks at the machine this runs on. */
export const LinuxConnectivity = (options: LinuxConnectivityOptions): Layer.Layer<Connectivity> => {
  const look = makeLook(options)
  return Layer.succeed(Connectivity, {
    hasReferences: options.referenceHosts.length > 0,
    look: (servers) =>
      Effect.promise(() =>
        withLimit(
          look(servers).catch((error: unknown) => finding("server_unreachable", `the look failed: ${error}`)),
          connectivityWithinMs,
          finding("server_unreachable", `the look did not end within ${connectivityWithinMs} ms`)
        )
      )
  })
}

/**
 * The port `Connectivity` on the real machine. What goes through Tor is neither resolved nor connected to from here: of it
 * only the layers below are looked at, and Tor's own word counts.
 *
 * @module
 */
import { isIP } from "node:net"
import { Effect, Layer } from "effect"
import { Connectivity, connectivityWithinMs } from "../ports/Connectivity.ts"
import type { Tunnel } from "../ports/Tunnel.ts"
import type { BrokenLayer, LinkFinding } from "../schemas/Connectivity.ts"
import { isOnionOrigin } from "../schemas/Onion.ts"
import {
  type Answer,
  anyReached,
  pageTrouble,
  type ServerTarget,
  serverAnswer,
  serverOfOrigin
} from "./connectivity/Answers.ts"
import { addressTrouble, linkTrouble, routeTrouble } from "./connectivity/Below.ts"
import {
  isLocal,
  makeResolver,
  type Resolved,
  type Target,
  type Trouble,
  targetOfHost,
  withLimit
} from "./connectivity/Targets.ts"
import { tunnelFinding } from "./connectivity/TunnelFinding.ts"
import { label } from "./host/Reading.ts"

/** How Tor is used, and how it is. */
export interface TorWay {
  /** As the key tor.mode. */
  readonly mode: "auto" | "always" | "never"
  /** `host:port` of those that Tor itself connects to first, as far as they are configured: bridges, a proxy. */
  readonly entries: ReadonlyArray<string>
  readonly tunnel: Pick<Tunnel["Service"], "state">
}

export interface LinuxConnectivityOptions {
  /** `host:port` of what should be reached where the network is good; none in a closed network. */
  readonly referenceHosts: ReadonlyArray<string>
  /** A page that answers 204 where nobody wants a login first; null for none. */
  readonly captivePortalUrl?: string | null
  /** `host:port` of the proxy that everything goes through; null for none. */
  readonly proxy?: string | null
  readonly tor?: TorWay
  /** For tests: where /sys is. */
  readonly sys?: string
}

const maximumTargets = 8

const finding = (layer: BrokenLayer, detail: string): LinkFinding => ({ layer, detail: label(detail, 200) })

const nameTrouble = (
  servers: ReadonlyArray<Resolved>,
  references: ReadonlyArray<Resolved>,
  proxies: ReadonlyArray<Resolved>
): Trouble => {
  const isUnknown = (all: ReadonlyArray<Resolved>) =>
    all.length > 0 && all.every(({ addresses }) => addresses.length === 0)
  const unknown = [...servers, ...references, ...proxies].filter(({ addresses }) => addresses.length === 0)
  const names = [...new Set(unknown.map(({ host }) => host))].join(", ")
  return [servers, references, proxies].some(isUnknown) ? `not resolved: ${names}` : undefined
}

/** Whom this look may speak to, of all there is. */
interface Scene {
  /** Servers that are connected to from here. */
  readonly servers: ReadonlyArray<ServerTarget & Resolved>
  readonly references: ReadonlyArray<Resolved>
  readonly page: { readonly url: string; readonly target: Resolved } | null
  readonly proxies: ReadonlyArray<Resolved>
  /** Where the kernel must know a way to, beside the world beyond the gateway. */
  readonly ways: ReadonlyArray<string>
  readonly isLocal: boolean
  /** Whether an address of the server goes through Tor. */
  readonly throughTor: boolean
}

const targets = (texts: ReadonlyArray<string>): ReadonlyArray<Target> =>
  texts.flatMap((text) => targetOfHost(text) ?? []).slice(0, maximumTargets)

const makeScene = (options: LinuxConnectivityOptions) => {
  const resolve = makeResolver()
  const { tor } = options
  const isAlways = tor?.mode === "always"
  const proxy = options.proxy ?? null
  const pageUrl = isAlways ? null : (options.captivePortalUrl ?? null)
  const pageTarget = pageUrl === null ? undefined : serverOfOrigin(pageUrl)
  const entries = targets(tor?.entries ?? [])
  return async (origins: ReadonlyArray<string>): Promise<Scene> => {
    const all = origins.flatMap((origin) => serverOfOrigin(origin) ?? [])
    // This very machine is reached directly, always; its name is not looked up for that where all goes through Tor.
    const isHidden = (one: ServerTarget) =>
      isOnionOrigin(one.origin) || (isAlways && !(isLocal(one) && isIP(one.host) !== 0))
    const throughTor = tor !== undefined && tor.mode !== "never" && all.some(isHidden)
    const plain = all.filter((one) => !isHidden(one))
    // Through a proxy their names are the proxy's business.
    const isDirect = (one: ServerTarget) => proxy === null || isLocal(one)
    const direct = plain.filter(isDirect).slice(0, maximumTargets)
    // Tor connects to its proxy by itself, and says how that went.
    const behindProxy = proxy !== null && !plain.every(isDirect) ? targets([proxy]) : []
    // Asked for first, judged later: in a closed network a name may be all that tells of a way.
    const [servers, references, proxies, page] = await Promise.all([
      Promise.all(direct.map(resolve)),
      Promise.all((isAlways ? [] : targets(options.referenceHosts)).map(resolve)),
      Promise.all(behindProxy.map(resolve)),
      pageTarget === undefined ? null : resolve(pageTarget)
    ])
    const first = throughTor ? entries : []
    return {
      servers,
      references,
      proxies,
      page: page === null || pageUrl === null ? null : { url: pageUrl, target: page },
      ways: [
        ...[...servers, ...references, ...proxies].flatMap(({ addresses }) => addresses),
        ...addressesIn(first)
      ],
      isLocal: [...servers, ...first].some(isLocal),
      throughTor
    }
  }
}

/** Only those that are addresses already: names are not looked up for this. */
const addressesIn = (all: ReadonlyArray<Target>): ReadonlyArray<string> =>
  all.map(({ host }) => host).filter((host) => /^[0-9.]+$|:/.test(host))

/** A layer, and how to look at it. */
type Step = readonly [BrokenLayer, () => Trouble | Promise<Trouble>]

const detailOf = (answer: Answer, tag: Exclude<Answer["_tag"], "Good">): Trouble =>
  answer._tag === tag ? answer.detail : undefined

/** Below any answer: nobody is spoken to but name servers, and those not where all goes through Tor. */
const stepsBelow = (scene: Scene, sys: string): ReadonlyArray<Step> => {
  const below: ReadonlyArray<Step> = [
    ["no_link", () => linkTrouble(sys)],
    ["no_address", addressTrouble],
    ["no_route", () => routeTrouble(scene.ways)]
  ]
  // A server on this very machine needs no network.
  return [
    ...(scene.isLocal ? [] : below),
    ["no_name_resolution", () => nameTrouble(scene.servers, scene.references, scene.proxies)]
  ]
}

/** What the answers of those tell that may be spoken to. */
const stepsAbove = (scene: Scene, answer: Answer, page: Trouble): ReadonlyArray<Step> => [
  // A server that is reached is proof that nobody stands in the way.
  ["captive_portal", () => detailOf(answer, "Portal") ?? (isReached(scene, answer) ? undefined : page)],
  ["no_reference_host", () => anyReached(scene.references)],
  ["proxy_unreachable", () => anyReached(scene.proxies)],
  ["clock_wrong", () => detailOf(answer, "Clock")]
]

const isReached = ({ servers }: Scene, { _tag }: Answer): boolean => servers.length > 0 && _tag === "Good"

const firstTrouble = async (steps: ReadonlyArray<Step>): Promise<LinkFinding | null> => {
  for (const [layer, look] of steps) {
    const trouble = await look()
    if (trouble !== undefined) return finding(layer, trouble)
  }
  return null
}

const makeLook = (options: LinuxConnectivityOptions) => {
  const sceneOf = makeScene(options)
  return async (origins: ReadonlyArray<string>): Promise<LinkFinding> => {
    const scene = await sceneOf(origins)
    const below = await firstTrouble(stepsBelow(scene, options.sys ?? "/sys"))
    if (below !== null) return below
    const [answer, page] = await Promise.all([
      serverAnswer(scene.servers),
      scene.page === null ? undefined : pageTrouble(scene.page.url, scene.page.target)
    ])
    const above = await firstTrouble(stepsAbove(scene, answer, page))
    if (above !== null) return above
    const good: LinkFinding = { layer: "ok", detail: origins.length === 0 ? "no server is known" : "" }
    if (isReached(scene, answer)) return good
    // What Tor has to say of an onion service comes with the failed request.
    if (scene.throughTor && options.tor !== undefined)
      return tunnelFinding(await Effect.runPromise(options.tor.tunnel.state)) ?? good
    return answer._tag === "Good" ? good : finding("server_unreachable", answer.detail)
  }
}

/** Looks at the machine this runs on. */
export const LinuxConnectivity = (options: LinuxConnectivityOptions): Layer.Layer<Connectivity> => {
  const look = makeLook(options)
  return Layer.succeed(Connectivity, {
    hasReferences: options.referenceHosts.length > 0 && options.tor?.mode !== "always",
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

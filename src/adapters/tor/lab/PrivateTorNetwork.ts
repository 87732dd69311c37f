/**
 * A whole Tor network of real tor processes on one machine, for tests and the demo: an authority and some relays, ready
 * for onion services and their clients after five to ten seconds. Nothing of it reaches the network outside.
 *
 * Its parts are processes that end with the scope, and, where this program is killed, by themselves; its folder goes too.
 *
 * @module
 */
import { readFile, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, Schedule, type Scope } from "effect"
import { labFailure, labFiles, TorLabError } from "./LabFailure.ts"
import { openLabFolder } from "./LabFolder.ts"
import { makeAuthority } from "./LabKeys.ts"
import { type LabLaunch, type LabNode, startLabNode, waitForNode } from "./LabNode.ts"
import { drawPorts } from "./LabPorts.ts"
import {
  type Authority,
  authorityLines,
  type BridgeTransport,
  memberLines,
  type RelayPlace,
  type RelayRole,
  relayNodeLines,
  votingLine
} from "./LabTorrc.ts"

export interface PrivateTorNetworkOptions {
  /** Folder in which the network makes one of its own. Default: the system's for temporary files. Keep it short. */
  readonly parent?: string
  /** The tor program. Default `tor`. */
  readonly tor?: string
  /** Relays beside the authority, which is one too. Default 3; fewer do not suffice for onion services. */
  readonly relays?: number
  /**
   * Address of all, or addresses of each in this order: authority, relays, exit, bridge (the last one serves all that
   * follow). Default 127.0.0.1.
   */
  readonly addresses?: ReadonlyArray<string>
  /** The same OR port for all, where each has an address of its own: 443. Default: free ones. */
  readonly orPort?: number
  /** One relay more, through which connections leave the network: to anywhere, as far as the machine lets them. */
  readonly exit?: boolean
  /** One bridge with the transport obfs4 (needs obfs4proxy; here its path or name, or true). */
  readonly bridge?: boolean | string
  /** What stands before the command of each tor: `["ip", "netns", "exec", "relays"]`. Default nothing. */
  readonly via?: ReadonlyArray<string>
}

/** A bridge as a client's configuration names it. */
export interface LabBridge {
  /** Without the word `Bridge`: `obfs4 127.0.0.1:PORT FINGERPRINT cert=… iat-mode=0`. */
  readonly line: string
  /** Without the word `ClientTransportPlugin`: `obfs4 exec /usr/bin/obfs4proxy`. */
  readonly transport: string
}

export interface PrivateTorNetwork {
  readonly folder: string
  /** Lines of torrc that make any further tor, of a server or of a device, a part of the network. */
  readonly options: ReadonlyArray<string>
  readonly authority: Authority
  readonly relays: ReadonlyArray<RelayPlace & { readonly role: RelayRole }>
  readonly bridge: LabBridge | null
  /** Processes, by nickname. */
  readonly pids: Readonly<Record<string, number>>
  /** Ends, with the last words of its log, when a part of the network ended. */
  readonly ended: Effect.Effect<string>
}

interface Plan {
  readonly authority: RelayPlace
  readonly dirPort: number
  readonly transport: BridgeTransport
  readonly relays: ReadonlyArray<RelayPlace & { readonly role: RelayRole }>
}

const fewestRelays = 3

const planNetwork = Effect.fnUntraced(function* (options: PrivateTorNetworkOptions) {
  const count = options.relays ?? fewestRelays
  if (count < fewestRelays)
    return yield* new TorLabError({ message: `An onion service needs ${fewestRelays} relays, not ${count}` })
  const roles: ReadonlyArray<RelayRole> = [
    ...Array.from({ length: count }, () => "relay" as const),
    ...(options.exit === true ? (["exit"] as const) : []),
    ...(options.bridge !== undefined && options.bridge !== false ? (["bridge"] as const) : [])
  ]
  const addresses = options.addresses ?? ["127.0.0.1"]
  const addressOf = (index: number): string => addresses[Math.min(index, addresses.length - 1)] as string
  const canTry = options.via === undefined
  const ports = yield* drawPorts(roles.length + 3, addressOf(0), canTry)
  const place = (nickname: string, index: number): RelayPlace => ({
    nickname,
    address: addressOf(index),
    orPort: options.orPort ?? (ports[index] as number)
  })
  return {
    authority: place("authority", 0),
    dirPort: ports[roles.length + 1] as number,
    transport: {
      program: typeof options.bridge === "string" ? options.bridge : "/usr/bin/obfs4proxy",
      port: ports[roles.length + 2] as number
    },
    relays: roles.map((role, index) => ({
      ...place(role === "relay" ? `relay${index + 1}` : role, index + 1),
      role
    }))
  } satisfies Plan
})

const linesThatBegin = (text: string, start: string): number =>
  text.split("\n").filter((line) => line.startsWith(start)).length

/** Everybody knows everybody: the authority has heard of all, has voted, and the others have read what it said. */
const awaitConsensus = Effect.fnUntraced(function* (
  authority: LabNode,
  relays: ReadonlyArray<LabNode>,
  listed: number
) {
  yield* waitForNode(authority, "the announcements of all relays", "dir/server/all", (text) => {
    return linesThatBegin(text, "router ") === listed
  })
  yield* Effect.mapError(authority.control.send(votingLine), (error) => labFailure("The authority", error))
  const consensus = "dir/status-vote/current/consensus-microdesc"
  yield* waitForNode(authority, "a consensus of all relays", consensus, (text) => {
    return linesThatBegin(text, "r ") === listed
  })
  yield* Effect.forEach(relays, awaitDirectory, { concurrency: "unbounded", discard: true })
})

/** A relay asks for the consensus at once when it is told to, and the next time only seconds later. */
const reloadMs = 600

const awaitDirectory = (node: LabNode): Effect.Effect<void, TorLabError> => {
  const reload = Effect.mapError(node.control.send("SIGNAL RELOAD"), (error) =>
    labFailure(`The ${node.nickname}`, error)
  )
  return Effect.raceFirst(
    Effect.asVoid(waitForNode(node, "the directory", "status/enough-dir-info", (value) => value === "1")),
    Effect.forever(Effect.andThen(reload, Effect.sleep(reloadMs)))
  )
}

const bridgePollMs = 50
const bridgePolls = 1_200

const readSecrets = (file: string) =>
  labFiles("The bridge's own line could not be read (does obfs4proxy run?)", async () => {
    const text = await readFile(file, "utf8")
    const secrets = /(cert=\S+ iat-mode=\d)/.exec(text)?.[1]
    if (secrets === undefined) throw new Error(`${file} holds no cert: ${text.trim()}`)
    return secrets
  })

/** What a client must know of a bridge that runs. */
export const readBridge = (
  node: LabNode,
  place: RelayPlace,
  transport: BridgeTransport
): Effect.Effect<LabBridge, TorLabError> =>
  Effect.gen(function* () {
    const fingerprint = yield* waitForNode(node, "its fingerprint", "fingerprint", (text) =>
      /^[0-9A-F]{40}$/.test(text)
    )
    const file = join(node.folder, "pt_state", "obfs4_bridgeline.txt")
    const secrets = yield* readSecrets(file).pipe(
      // The transport writes it when it has started, which tor does not wait for.
      Effect.retry({ schedule: Schedule.spaced(bridgePollMs), times: bridgePolls })
    )
    return {
      line: `obfs4 ${place.address}:${transport.port} ${fingerprint} ${secrets}`,
      transport: `obfs4 exec ${transport.program}`
    }
  })

/** Starts the network; ready when every relay can build circuits. It ends with the scope. */
export const startPrivateTorNetwork = Effect.fnUntraced(function* (
  options: PrivateTorNetworkOptions = {}
): Effect.fn.Return<PrivateTorNetwork, TorLabError, Scope.Scope> {
  const plan = yield* planNetwork(options)
  const folder = yield* openLabFolder(options.parent ?? tmpdir())
  const tor = options.tor ?? "tor"
  const launch: LabLaunch = { folder, command: [...(options.via ?? []), tor] }
  const nameServers = join(folder, "resolv.conf")
  yield* labFiles(`Files could not be written into ${folder}`, async () => {
    await writeFile(join(folder, "empty"), "")
    await writeFile(nameServers, "nameserver 127.0.0.1\n")
  })
  const authority = yield* makeAuthority(folder, tor, plan.authority, plan.dirPort)
  const head = yield* startLabNode(
    launch,
    authority.nickname,
    authorityLines(authority, nameServers, options.exit === true)
  )
  const others = yield* Effect.forEach(
    plan.relays,
    (place) =>
      startLabNode(
        launch,
        place.nickname,
        relayNodeLines(
          authority,
          place,
          nameServers,
          place.role,
          place.role === "bridge" ? plan.transport : undefined
        )
      ),
    { concurrency: "unbounded" }
  )
  const listed = 1 + plan.relays.filter(({ role }) => role !== "bridge").length
  yield* awaitConsensus(head, others, listed)
  const bridgeIndex = plan.relays.findIndex(({ role }) => role === "bridge")
  const bridge =
    bridgeIndex < 0
      ? null
      : yield* readBridge(
          others[bridgeIndex] as LabNode,
          plan.relays[bridgeIndex] as RelayPlace,
          plan.transport
        )
  const nodes = [head, ...others]
  return {
    folder,
    options: memberLines(authority),
    authority,
    relays: plan.relays,
    bridge,
    pids: Object.fromEntries(nodes.map((node) => [node.nickname, node.pid])),
    ended: Effect.raceAllFirst(nodes.map((node) => node.ended))
  }
})

/**
 * What a new trust root changes, from the command line: one edit for each flag.
 *
 * @module
 */
import { readFileSync } from "node:fs"
import { Effect, Option, Result } from "effect"
import { Flag } from "effect/cli"
import { errorText } from "../../adapters/files/AtomicFile.ts"
import { fetchServerIdentity } from "../../adapters/operator/ManagementClient.ts"
import { keyCardPrefix, readKeyCard } from "../../crypto/KeyCards.ts"
import {
  addKey,
  addServer,
  type RootEdit,
  removeKey,
  removeServer,
  setAddresses,
  setBrokerServices,
  setServerBrokerServices,
  setThreshold
} from "../../crypto/RootEdits.ts"
import { verifyServerIdentity } from "../../crypto/Trust.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { Limits } from "../../schemas/Limits.ts"
import type { RoleName } from "../../schemas/TrustRoot.ts"
import { failure, usage } from "./Failure.ts"
import { identityFromFile } from "./ServerIdentities.ts"
import { chosenServer, parseAddress, wayTo } from "./Settings.ts"
import { visible } from "./Text.ts"

const many = (name: string, metavar: string, description: string, maximum: number = Limits.rootKeys) =>
  Flag.String(name).pipe(Flag.withMetavar(metavar), Flag.withDescription(description), Flag.atMost(maximum))

const one = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(Flag.withMetavar(metavar), Flag.withDescription(description), Flag.optional)

/** Flags of `keys root draft`; they may be combined. */
export const editFlags = {
  addOperator: many(
    "add-operator",
    "CARD",
    "Let somebody give work: their key card, or a file that holds it"
  ),
  removeOperator: many("remove-operator", "KEY", "Revoke an operator: label, id, or the beginning of the id"),
  addRootKey: many("add-root-key", "CARD", "Let a key sign roots"),
  removeRootKey: many("remove-root-key", "KEY", "Let a key sign roots no longer"),
  threshold: many("threshold", "ROLE=N", "How many must sign: root=2, operators=1", 4),
  addServer: many(
    "add-server",
    "FILE",
    "Let a server carry this root: its identity (server.js identity > FILE), with the addresses in it",
    Limits.rootServers
  ),
  removeServer: many("remove-server", "ID", "Take a server out", Limits.rootServers),
  address: many(
    "address",
    "[ID=]URL",
    "Where devices reach a server, best first; ID where there are several servers",
    Limits.rootServers * Limits.serverAddresses
  ),
  brokerServices: one(
    "broker-services",
    "KEY",
    "The key that broker services sign with: server (what the server you are logged in to says is its own), a file with a server's identity, a key card, or none"
  )
}

/** Values of {@link editFlags}. */
export type EditValues = {
  readonly [Key in keyof typeof editFlags]: (typeof editFlags)[Key] extends Flag.Flag<infer A> ? A : never
}

/** A key card from the command line: the word itself, or the file that holds it. */
export const cardFrom = (text: string) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const word = text.startsWith(keyCardPrefix)
      ? text
      : yield* Effect.try({
          try: () => readFileSync(text, "utf8"),
          catch: (error) => failure(`Could not read the key card ${text}: ${errorText(error)}`)
        })
    const card = readKeyCard(engine, word)
    if (Result.isSuccess(card)) return card.success
    return yield* failure(`The key card is not good: ${visible(card.failure)}. Ask for it again`)
  })

const roleNames: Readonly<Record<string, RoleName>> = {
  root: "root",
  operators: "operators",
  servers: "servers"
}

const thresholdEdit = (text: string) =>
  Effect.gen(function* () {
    const match = /^([a-z]+)=([0-9]{1,3})$/.exec(text)
    const role = roleNames[match?.[1] ?? ""]
    if (match === null || role === undefined)
      return yield* usage(`--threshold ${text}: write it as root=2 or operators=1`)
    return setThreshold(role, Number(match[2]))
  })

const identityIn = (path: string) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const verified = verifyServerIdentity(engine, yield* identityFromFile(path))
    if (Result.isSuccess(verified)) return verified.success
    return yield* failure(`The server's identity in ${path} does not hold: ${verified.failure.message}`)
  })

const serverEdit = (path: string) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const identity = yield* identityIn(path)
    const { addresses } = identity
    if (addresses.length === 0)
      return yield* usage(
        `The identity in ${path} names no address. Configure the server's addresses, and write it anew`
      )
    return addServer(engine, identity, addresses)
  })

/** What the server that is logged in to says of itself. The edit takes it only where the root names that very server. */
const askedIdentity = Effect.gen(function* () {
  const engine = yield* CryptoEngine
  const { address, proxy } = yield* chosenServer
  const verified = verifyServerIdentity(engine, yield* fetchServerIdentity(yield* wayTo(address, proxy)))
  if (Result.isSuccess(verified)) return verified.success
  return yield* failure(`The server's identity does not hold: ${verified.failure.message}`)
})

/** A server's identity and a key card may both stand in a file; the one is JSON, the other is not. */
const holdsJson = (path: string): boolean => {
  try {
    return readFileSync(path, "utf8").trimStart().startsWith("{")
  } catch {
    return false
  }
}

const brokerServicesEdit = (text: string) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    if (text === "none") return setBrokerServices(null)
    if (text === "server") return setServerBrokerServices(engine, yield* askedIdentity)
    return holdsJson(text)
      ? setServerBrokerServices(engine, yield* identityIn(text))
      : setBrokerServices(yield* cardFrom(text))
  })

/** One edit for each server whose addresses are given. */
const addressEdits = (given: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const byServer = new Map<string | null, Array<string>>()
    for (const text of given) {
      const match = /^(srv_[a-z2-7]+)=(.*)$/.exec(text)
      const server = match?.[1] ?? null
      const list = byServer.get(server) ?? []
      byServer.set(server, [...list, yield* parseAddress(match?.[2] ?? text)])
    }
    return [...byServer].map(([server, addresses]) => setAddresses(server, addresses))
  })

/** All edits that the flags ask for: keys first, then servers, thresholds last, since they depend on how many keys there are. */
export const editsFrom = (flags: EditValues) =>
  Effect.gen(function* () {
    const edits: Array<RootEdit> = []
    for (const text of flags.removeOperator) edits.push(removeKey(text, ["operators"]))
    for (const text of flags.removeRootKey) edits.push(removeKey(text, ["root"]))
    for (const text of flags.addOperator) edits.push(addKey(yield* cardFrom(text), ["operators"]))
    for (const text of flags.addRootKey) edits.push(addKey(yield* cardFrom(text), ["root"]))
    if (Option.isSome(flags.brokerServices)) edits.push(yield* brokerServicesEdit(flags.brokerServices.value))
    for (const path of flags.addServer) edits.push(yield* serverEdit(path))
    for (const text of flags.removeServer) edits.push(removeServer(text))
    edits.push(...(yield* addressEdits(flags.address)))
    for (const text of flags.threshold) edits.push(yield* thresholdEdit(text))
    return edits
  })

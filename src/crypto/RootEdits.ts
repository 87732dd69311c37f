/**
 * Making the next trust root from the one there is: edits as pure functions, and what they come to in sentences for the
 * person who signs.
 *
 * @module
 */
import { Result, Schema } from "effect"
import type { ServerIdentity } from "../schemas/Enrolment.ts"
import type { KeyId, Recipient, SigningKey } from "../schemas/Ids.ts"
import { Limits } from "../schemas/Limits.ts"
import { type Role, type RoleName, type RootKey, type RootServer, TrustRoot } from "../schemas/TrustRoot.ts"
import type { Engine } from "./Engine.ts"
import type { ProvedCard } from "./KeyCards.ts"
import { brokerServicesOf, checkKeys, keyIdOf, signingKeyBytes } from "./Trust.ts"

/** One change, or the sentence why it cannot be made. */
export type RootEdit = (root: TrustRoot) => Result.Result<TrustRoot, string>

/** What people call a role. */
export const roleTexts: Readonly<Record<RoleName, string>> = {
  root: "root key",
  operators: "operator",
  servers: "server key",
  broker_services: "broker-services key"
}

/** A label needs this many characters of an id to stand for it. */
const shortestId = 8

type Key = typeof RootKey.Type

const rootKey = (public_key: SigningKey, label: string, recipient: Recipient | null): Key => ({
  algorithm: "ed25519",
  public_key,
  label,
  recipient
})

const changeRole = (
  root: TrustRoot,
  name: RoleName,
  change: (role: typeof Role.Type) => typeof Role.Type
) => ({
  ...root,
  roles: { ...root.roles, [name]: change(root.roles[name]) }
})

const withKeyIn = (root: TrustRoot, name: RoleName, keyId: KeyId): TrustRoot =>
  changeRole(root, name, (role) => ({ ...role, keys: [...role.keys, keyId] }))

/** Puts the key of a card into roles. An operator's card must say where to encrypt to. */
export const addKey =
  ({ card, keyId }: ProvedCard, roles: ReadonlyArray<RoleName>): RootEdit =>
  (root) => {
    if (roles.includes("operators") && card.recipient === null)
      return Result.fail(
        `the card of ${card.label} is of a key that only signs roots: it cannot be an operator`
      )
    const namesake = Object.entries(root.keys).find(([id, key]) => key.label === card.label && id !== keyId)
    if (namesake !== undefined)
      return Result.fail(`the root has another key that is called ${card.label} (${namesake[0]})`)
    const missing = roles.filter((name) => !root.roles[name].keys.includes(keyId))
    if (missing.length === 0)
      return Result.fail(`${card.label} is ${roles.map((name) => roleTexts[name]).join(" and ")} already`)
    const key = rootKey(card.public_key, card.label, card.recipient ?? root.keys[keyId]?.recipient ?? null)
    const keys = { ...root.keys, [keyId]: key }
    return Result.succeed(missing.reduce((edited, name) => withKeyIn(edited, name, keyId), { ...root, keys }))
  }

/** The key of some roles that a text means: its label, its id, or the beginning of its id. */
const findKey = (
  root: TrustRoot,
  roles: ReadonlyArray<RoleName>,
  text: string
): Result.Result<KeyId, string> => {
  const there = [...new Set(roles.flatMap((name) => root.roles[name].keys))]
  const exact = there.filter((id) => id === text || root.keys[id]?.label === text)
  const meant =
    exact.length > 0 ? exact : there.filter((id) => text.length >= shortestId && id.startsWith(text))
  if (meant.length === 1) return Result.succeed(meant[0] as KeyId)
  const what = roles.map((name) => roleTexts[name]).join(" or ")
  return Result.fail(
    meant.length === 0
      ? `the root has no ${what} called ${text}`
      : `${text} may be any of ${meant.length} keys`
  )
}

/** Takes a key out of roles; one that is in none any more leaves the root. */
export const removeKey =
  (text: string, roles: ReadonlyArray<RoleName>): RootEdit =>
  (root) =>
    Result.map(findKey(root, roles, text), (keyId) =>
      roles.reduce(
        (edited, name) =>
          changeRole(edited, name, (role) => ({ ...role, keys: role.keys.filter((id) => id !== keyId) })),
        root
      )
    )

/** Takes an operator's key out of every role in which a person signs. */
export const revokeOperator =
  (text: string): RootEdit =>
  (root) =>
    Result.flatMap(findKey(root, ["operators"], text), (keyId) =>
      removeKey(keyId, ["operators", "root"])(root)
    )

/** How many keys of a role must sign. */
export const setThreshold =
  (name: RoleName, threshold: number): RootEdit =>
  (root) =>
    // Signatures by the keys of two roots must fit into one envelope.
    threshold < 1 || threshold > Limits.envelopeSignatures / 2
      ? Result.fail(`a threshold is between 1 and ${Limits.envelopeSignatures / 2}`)
      : Result.succeed(changeRole(root, name, (role) => ({ ...role, threshold })))

/** What the key of a server's broker services is called in a root, by which it leaves together with the server. */
export const brokerServicesLabel = (server: string): string => `broker services ${server.slice(0, 12)}`

const withoutLabelled = (root: TrustRoot, name: RoleName, label: string): TrustRoot =>
  changeRole(root, name, (role) => ({
    ...role,
    keys: role.keys.filter((keyId) => root.keys[keyId]?.label !== label)
  }))

/** The root with a server's own key for broker services, in the place of an older one of that server. */
const withBrokerServices = (engine: Engine, root: TrustRoot, server: string, key: SigningKey): TrustRoot => {
  const label = brokerServicesLabel(server)
  const emptied = withoutLabelled(root, "broker_services", label)
  const keyId = keyIdOf(engine, signingKeyBytes(key) as Uint8Array)
  if (emptied.roles.broker_services.keys.includes(keyId)) return emptied
  return withKeyIn(
    { ...emptied, keys: { ...emptied.keys, [keyId]: rootKey(key, label, null) } },
    "broker_services",
    keyId
  )
}

/**
 * Lets a server carry this root, with the addresses under which devices reach it, and its broker services sign where it
 * has any. Its identity must have been verified.
 */
export const addServer =
  (engine: Engine, identity: ServerIdentity, addresses: RootServer["addresses"]): RootEdit =>
  (root) => {
    const publicKey = signingKeyBytes(identity.signing_key)
    if (publicKey === undefined) return Result.fail("the server's signing key is not acceptable")
    if (root.servers.some(({ id }) => id === identity.server))
      return Result.fail(`the root names the server ${identity.server} already`)
    const keyId = keyIdOf(engine, publicKey)
    const key = rootKey(identity.signing_key, `server ${identity.server.slice(0, 12)}`, null)
    const server: RootServer = { id: identity.server, key: keyId, recipient: identity.recipient, addresses }
    const added = withKeyIn(
      { ...root, keys: { ...root.keys, [keyId]: key }, servers: [...root.servers, server] },
      "servers",
      keyId
    )
    const services = brokerServicesOf(engine, identity)
    if (Result.isFailure(services)) return Result.fail(services.failure.message)
    return Result.succeed(
      services.success === null ? added : withBrokerServices(engine, added, server.id, services.success)
    )
  }

const findServer = (root: TrustRoot, text: string | null): Result.Result<RootServer, string> => {
  const meant =
    text === null
      ? root.servers
      : root.servers.filter(({ id }) => id === text || (text.length >= shortestId && id.startsWith(text)))
  if (meant.length === 1) return Result.succeed(meant[0] as RootServer)
  return Result.fail(
    text === null
      ? `the root names ${meant.length} servers: say which one`
      : `${meant.length === 0 ? "the root names no server" : "more than one server is"} ${text}`
  )
}

/** Takes a server out, with its key and that of its broker services. */
export const removeServer =
  (text: string): RootEdit =>
  (root) =>
    Result.map(findServer(root, text), ({ id, key }) =>
      changeRole(
        {
          ...withoutLabelled(root, "broker_services", brokerServicesLabel(id)),
          servers: root.servers.filter((server) => server.id !== id)
        },
        "servers",
        (role) => ({
          ...role,
          keys: role.keys.filter((other) => other !== key)
        })
      )
    )

/** Where devices reach a server; null means the only one there is. */
export const setAddresses =
  (text: string | null, addresses: RootServer["addresses"]): RootEdit =>
  (root) =>
    Result.map(findServer(root, text), ({ id }) => ({
      ...root,
      servers: root.servers.map((server) => (server.id === id ? { ...server, addresses } : server))
    }))

/** The key that broker services sign with: exactly this one, or none. */
export const setBrokerServices =
  (card: ProvedCard | null): RootEdit =>
  (root) => {
    const emptied = changeRole(root, "broker_services", () => ({ keys: [], threshold: 1 }))
    return card === null ? Result.succeed(emptied) : addKey(card, ["broker_services"])(emptied)
  }

/**
 * The key that a server says its broker services sign with: of the only server, exactly this one; else in the place of that
 * server's. The root must name the server with the very key that signed this word.
 */
export const setServerBrokerServices =
  (engine: Engine, identity: ServerIdentity): RootEdit =>
  (root) => {
    const publicKey = signingKeyBytes(identity.signing_key)
    const entry = root.servers.find(({ id }) => id === identity.server)
    if (publicKey === undefined || entry === undefined || entry.key !== keyIdOf(engine, publicKey))
      return Result.fail(`the root does not name the server ${identity.server} with its own key`)
    const services = brokerServicesOf(engine, identity)
    if (Result.isFailure(services)) return Result.fail(services.failure.message)
    if (services.success === null)
      return Result.fail(
        `the server ${identity.server} tells no key of broker services: it carries no messages (messaging.enabled), or is of an older version`
      )
    const emptied =
      root.servers.length === 1
        ? changeRole(root, "broker_services", () => ({ keys: [], threshold: 1 }))
        : root
    return Result.succeed(withBrokerServices(engine, emptied, identity.server, services.success))
  }

const withoutStrays = (root: TrustRoot): TrustRoot => {
  const named = new Set<string>(Object.values(root.roles).flatMap((role) => role.keys))
  return { ...root, keys: Object.fromEntries(Object.entries(root.keys).filter(([id]) => named.has(id))) }
}

/** What the schema allows and still leaves a fleet without anybody who could act. */
const flawOf = (root: TrustRoot): string | null => {
  for (const name of ["root", "operators"] as const) {
    const { keys, threshold } = root.roles[name]
    if (keys.length === 0) return `there would be no ${roleTexts[name]} any more`
    if (threshold > keys.length) {
      return `${threshold} signatures of ${roleTexts[name]}s would be needed, and there would be ${keys.length} of them: lower the threshold (--threshold ${name}=N) or add a key`
    }
  }
  return root.servers.length === 0 ? "no server could carry it: name one" : null
}

const decodeRoot = Schema.decodeUnknownResult(TrustRoot, { onExcessProperty: "error" })

/**
 * The root after `current`, with edits made in their order. It ends at `expiresAtMs`. Fails with a sentence where an edit
 * cannot be made or the outcome would be no sound root.
 */
export const nextRoot = (
  engine: Engine,
  current: TrustRoot,
  edits: ReadonlyArray<RootEdit>,
  times: { readonly nowMs: number; readonly expiresAtMs: number }
): Result.Result<TrustRoot, string> => {
  let root: TrustRoot = {
    ...current,
    version: current.version + 1,
    issued_at_ms: times.nowMs,
    expires_at_ms: times.expiresAtMs
  }
  for (const edit of edits) {
    const edited = edit(root)
    if (Result.isFailure(edited)) return edited
    root = edited.success
  }
  root = withoutStrays(root)
  const flaw = flawOf(root)
  if (flaw !== null) return Result.fail(flaw)
  if (root.version > Limits.rootChain)
    return Result.fail(`a chain has at most ${Limits.rootChain} roots, and this would be one more`)
  const decoded = decodeRoot(root)
  if (Result.isFailure(decoded)) return Result.fail(decoded.failure.message)
  const sound = checkKeys(engine, decoded.success)
  return Result.isFailure(sound) ? Result.fail(sound.failure.message) : Result.succeed(decoded.success)
}

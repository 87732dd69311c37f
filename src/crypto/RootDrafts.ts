/**
 * A trust root on its way: what it changes, who signed it, and whose signatures it still needs. All pure, so that the
 * machine that signs, and may be one without any network, judges by the same words as the one that publishes.
 *
 * @module
 */
import { Result } from "effect"
import type { DsseEnvelope } from "../schemas/Dsse.ts"
import type { Digest, KeyId } from "../schemas/Ids.ts"
import { type RoleName, TrustRoot } from "../schemas/TrustRoot.ts"
import { Distrust, openUnverified } from "./Documents.ts"
import { verifyEnvelope } from "./Dsse.ts"
import type { Engine } from "./Engine.ts"
import { roleTexts } from "./RootEdits.ts"
import { checkKeys, signingKeyBytes, verifyFirstRoot } from "./Trust.ts"

/** Signatures that a root needs by the root keys of one version. */
export interface RootNeed {
  readonly version: number
  readonly threshold: number
  /** Root keys of that version with a good signature on it. */
  readonly signed: ReadonlyArray<KeyId>
  /** Those that have not signed. */
  readonly open: ReadonlyArray<KeyId>
}

/** A draft that was looked into. */
export interface JudgedDraft {
  readonly current: TrustRoot
  readonly next: TrustRoot
  /** Digest of the next root's payload: what people compare who sign on different machines. */
  readonly digest: Digest
  readonly changes: ReadonlyArray<string>
  /** Of the present root and of the next one. */
  readonly needs: readonly [RootNeed, RootNeed]
  /** Whether both have enough. */
  readonly complete: boolean
}

const needOf = (engine: Engine, judge: TrustRoot, envelope: DsseEnvelope): RootNeed => {
  const { keys, threshold } = judge.roles.root
  const verifiers = keys.flatMap((keyId) => {
    const key = judge.keys[keyId]
    const publicKey = key === undefined ? undefined : signingKeyBytes(key.public_key)
    return publicKey === undefined ? [] : [{ keyId, publicKey }]
  })
  const good = verifyEnvelope(engine, envelope, verifiers)
  return {
    version: judge.version,
    threshold,
    signed: keys.filter((key) => good.has(key)),
    open: keys.filter((key) => !good.has(key))
  }
}

const isMet = ({ signed, threshold }: RootNeed): boolean => signed.length >= threshold

/** Looks into a draft: the root it starts from, which must hold by its own signatures, and the next one. */
export const judgeDraft = (
  engine: Engine,
  current: DsseEnvelope,
  next: DsseEnvelope
): Result.Result<JudgedDraft, Distrust> => {
  const before = verifyFirstRoot(engine, current, null)
  if (Result.isFailure(before)) return Result.fail(before.failure)
  const after = openUnverified(engine, "root", TrustRoot, next)
  if (Result.isFailure(after)) return Result.fail(after.failure)
  const { digest, document } = after.success
  const sound = checkKeys(engine, document)
  if (Result.isFailure(sound)) return Result.fail(sound.failure)
  const from = before.success.document
  if (document.version !== from.version + 1) {
    const detail = `it is version ${document.version} where ${from.version + 1} comes next`
    return Result.fail(new Distrust({ code: "malformed", detail }))
  }
  const needs = [needOf(engine, from, next), needOf(engine, document, next)] as const
  return Result.succeed({
    current: from,
    next: document,
    digest,
    changes: describeChanges(from, document),
    needs,
    complete: needs.every(isMet)
  })
}

const nameOf = (root: TrustRoot, keyId: KeyId): string => `${root.keys[keyId]?.label ?? "?"} (${keyId})`

const roleChanges = (before: TrustRoot, after: TrustRoot, name: RoleName): ReadonlyArray<string> => {
  const old = before.roles[name]
  const now = after.roles[name]
  const added = now.keys.filter((key) => !old.keys.includes(key))
  const removed = old.keys.filter((key) => !now.keys.includes(key))
  return [
    ...added.map((key) => `adds the ${roleTexts[name]} ${nameOf(after, key)}`),
    ...removed.map((key) => `takes away the ${roleTexts[name]} ${nameOf(before, key)}`),
    ...(old.threshold === now.threshold
      ? []
      : [
          `${roleTexts[name]}s that must sign: ${now.threshold} of ${now.keys.length}, no longer ${old.threshold} of ${old.keys.length}`
        ])
  ]
}

/** A key that stays, with something else said of it. */
const keyChanges = (before: TrustRoot, after: TrustRoot): ReadonlyArray<string> =>
  Object.entries(after.keys).flatMap(([id, key]) => {
    const old = before.keys[id as KeyId]
    if (old === undefined) return []
    return [
      ...(old.label === key.label ? [] : [`calls the key ${id} ${key.label}, no longer ${old.label}`]),
      ...(old.recipient === key.recipient
        ? []
        : [
            `packages and results for ${nameOf(after, id as KeyId)} are encrypted to ${key.recipient ?? "nobody"}, no longer to ${old.recipient ?? "nobody"}`
          ])
    ]
  })

const serverChanges = (before: TrustRoot, after: TrustRoot): ReadonlyArray<string> => [
  ...after.servers.flatMap((server) => {
    const old = before.servers.find(({ id }) => id === server.id)
    const addresses = server.addresses.join(" ")
    if (old === undefined) return [`adds the server ${server.id} at ${addresses}`]
    return [
      ...(old.addresses.join(" ") === addresses
        ? []
        : [`devices reach ${server.id} at ${addresses}, no longer at ${old.addresses.join(" ")}`]),
      ...(old.key === server.key && old.recipient === server.recipient
        ? []
        : [`the server ${server.id} has other keys`])
    ]
  }),
  ...before.servers
    .filter(({ id }) => after.servers.every((server) => server.id !== id))
    .map(
      ({ id }) =>
        `takes away the server ${id}: it will refuse this root, and devices that know no other server stay at version ${before.version}`
    )
]

const dayMs = 86_400_000
const inDays = (days: number): string => `${days} day${days === 1 ? "" : "s"}`

/** What a root changes of the one before it, one sentence each; its end is always among them. */
export const describeChanges = (before: TrustRoot, after: TrustRoot): ReadonlyArray<string> => {
  const days = Math.round((after.expires_at_ms - after.issued_at_ms) / dayMs)
  const further = Math.round((after.expires_at_ms - before.expires_at_ms) / dayMs)
  const move =
    further === 0
      ? "as before"
      : further > 0
        ? `${inDays(further)} later than before`
        : `${inDays(-further)} EARLIER`
  return [
    ...(["operators", "root", "servers", "broker_services"] as const).flatMap((name) =>
      roleChanges(before, after, name)
    ),
    ...keyChanges(before, after),
    ...serverChanges(before, after),
    `is good for ${inDays(days)} from when it was drafted (${move})`
  ]
}

/** Both drafts' signatures in one, where they are of the same root. */
export const joinSignatures = (left: DsseEnvelope, right: DsseEnvelope): DsseEnvelope | undefined => {
  if (left.payload !== right.payload || left.payloadType !== right.payloadType) return undefined
  const there = new Set(left.signatures.map(({ keyid, sig }) => `${keyid} ${sig}`))
  const fresh = right.signatures.filter(({ keyid, sig }) => !there.has(`${keyid} ${sig}`))
  return { ...left, signatures: [...left.signatures, ...fresh] }
}

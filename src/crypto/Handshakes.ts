/**
 * Reading the documents by which agents and broker services know each other: strict, signed by the very key each names, and
 * with no agreement key that nothing can be sealed to. Whose signing key that is must be judged by others.
 *
 * @module
 */
import { Result, type Schema } from "effect"
import {
  AgentStatus,
  type Agreement,
  ConnectProof,
  Directory,
  type DirectoryEntry,
  DocumentLimits,
  Handshake,
  HandshakeAnswer,
  Ping
} from "../schemas/Agents.ts"
import { decodeBase64 } from "./Base64.ts"
import { canonicalBytes } from "./CanonicalJson.ts"
import type { Engine } from "./Engine.ts"
import { parseX25519PublicKey } from "./Keys.ts"
import { type Judged, RefusedMessage } from "./Messages.ts"
import { isSignedByItsKey, readerOf, type SignedJson } from "./SignedJson.ts"

const refuse = (code: RefusedMessage["code"], detail: string) =>
  Result.fail(new RefusedMessage({ code, detail }))

/** `agreementsOf`: the keys in it that others will seal to. */
const signedReader = <A extends SignedJson>(
  schema: Schema.Codec<A, unknown>,
  maximumBytes: number,
  agreementsOf: (document: A) => ReadonlyArray<Agreement> = () => []
) => {
  const read = readerOf(schema, { maximumBytes })
  return (engine: Engine, wire: Uint8Array): Judged<A> => {
    if (wire.length > maximumBytes)
      return refuse("too_large", `it has ${wire.length} bytes, at most ${maximumBytes} are taken`)
    const document = read(wire)
    if (Result.isFailure(document)) return refuse("malformed", document.failure)
    if (!isSignedByItsKey(engine, document.success))
      return refuse("bad_signature", "its signature does not fit")
    return agreementsOf(document.success).every(({ key }) => isAgreementKey(key))
      ? Result.succeed(document.success)
      : refuse("malformed", "it names a key that nothing can be sealed to")
  }
}

/** Whether a key is one to seal to: canonical, and not of small order. */
const isAgreementKey = (key: string): boolean => {
  const bytes = decodeBase64(key)
  return bytes !== undefined && Result.isSuccess(parseX25519PublicKey(bytes))
}

const { directoryBytes, documentBytes } = DocumentLimits

export const readConnectProof = signedReader(ConnectProof, documentBytes)
export const readHandshake = signedReader(Handshake, documentBytes, ({ agreement }) => [agreement])
export const readHandshakeAnswer = signedReader(HandshakeAnswer, documentBytes, ({ agreement }) => [
  agreement
])
export const readStatus = signedReader(AgentStatus, documentBytes)
export const readPing = signedReader(Ping, documentBytes)
export const readDirectory = signedReader(Directory, directoryBytes, ({ agents }) =>
  agents.map(({ agreement }) => agreement)
)

/** The list in parts that each may be read: neither too many entries in one, nor too many bytes. At least one part. */
export const partsOf = (
  entries: ReadonlyArray<DirectoryEntry>
): ReadonlyArray<ReadonlyArray<DirectoryEntry>> => {
  const parts: Array<Array<DirectoryEntry>> = [[]]
  let sizeBytes = 0
  for (const entry of entries) {
    const entryBytes = canonicalBytes(entry).length + 1
    const last = parts.at(-1) as Array<DirectoryEntry>
    const isFull =
      last.length >= DocumentLimits.directoryAgents ||
      sizeBytes + entryBytes > directoryBytes - DocumentLimits.directoryHeadBytes
    if (isFull) parts.push([entry])
    else last.push(entry)
    sizeBytes = isFull ? entryBytes : sizeBytes + entryBytes
  }
  return parts
}

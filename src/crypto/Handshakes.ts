/**
 * Reading the documents by which agents and broker services know each other: strict, and signed by the very key each names.
 * Whose key that is must be judged by others.
 *
 * @module
 */
import { Result, type Schema } from "effect"
import { AgentStatus, ConnectProof, Directory, Handshake, HandshakeAnswer, Ping } from "../schemas/Agents.ts"
import type { Engine } from "./Engine.ts"
import { type Judged, RefusedMessage } from "./Messages.ts"
import { isSignedByItsKey, readerOf, type SignedJson } from "./SignedJson.ts"

const smallBytes = 16 * 1024
const directoryBytes = 240 * 1024

const signedReader = <A extends SignedJson>(schema: Schema.Codec<A, unknown>, maximumBytes: number) => {
  const read = readerOf(schema, maximumBytes)
  return (engine: Engine, wire: Uint8Array): Judged<A> => {
    const document = read(wire)
    if (Result.isFailure(document))
      return Result.fail(new RefusedMessage({ code: "malformed", detail: document.failure }))
    return isSignedByItsKey(engine, document.success)
      ? Result.succeed(document.success)
      : Result.fail(new RefusedMessage({ code: "bad_signature", detail: "its signature does not fit" }))
  }
}

export const readConnectProof = signedReader(ConnectProof, smallBytes)
export const readHandshake = signedReader(Handshake, smallBytes)
export const readHandshakeAnswer = signedReader(HandshakeAnswer, smallBytes)
export const readStatus = signedReader(AgentStatus, smallBytes)
export const readPing = signedReader(Ping, smallBytes)
export const readDirectory = signedReader(Directory, directoryBytes)

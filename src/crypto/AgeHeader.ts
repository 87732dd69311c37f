/**
 * The header of an age file (https://age-encryption.org/v1): who can open it, as stanzas, under a MAC.
 *
 *     age-encryption.org/v1
 *     -> X25519 <ephemeral share>
 *     <wrapped file key>
 *     --- <MAC>
 *
 * Reading is as strict as the specification: one spelling, LF only, canonical base64, lines of 64 characters with
 * a shorter last one, bounded in bytes and stanzas.
 *
 * @module
 */
import { Schema } from "effect"
import { Limits } from "../schemas/Limits.ts"
import { decodeBase64Unpadded, encodeBase64Unpadded } from "./Base64.ts"
import { equalBytes, utf8 } from "./Bytes.ts"
import type { Engine } from "./Engine.ts"

/**
 * An age file could not be opened. No plaintext of the piece in question was handed out.
 *
 * - `header_malformed`, `header_too_large`: it is not an age file, or damaged
 * - `work_factor`: its passphrase stanza asks for more work than allowed
 * - `no_match`: none of the identities (or not the passphrase) opens it
 * - `header_mac`: the header was changed
 * - `payload_truncated`, `payload_corrupt`: the content was cut or changed
 */
export class DecryptError extends Schema.TaggedError<DecryptError>()("DecryptError", {
  reason: Schema.Literals([
    "header_malformed",
    "header_too_large",
    "work_factor",
    "no_match",
    "header_mac",
    "payload_truncated",
    "payload_corrupt"
  ]),
  message: Schema.String
}) {}

/** One way to the file key: arguments (the first one is the kind) and a body. */
export interface AgeStanza {
  readonly arguments: ReadonlyArray<string>
  readonly body: Uint8Array
}

/** A header taken apart. `signed` is what the MAC covers. */
export interface AgeHeader {
  readonly stanzas: ReadonlyArray<AgeStanza>
  readonly signed: Uint8Array
  readonly mac: Uint8Array
}

export const ageFileKeyBytes = 16
const version = "age-encryption.org/v1"
const columns = 64
const macBytes = 32

/** The refusal of a header that does not follow the format. */
export const malformedHeader = (what: string): DecryptError =>
  new DecryptError({ reason: "header_malformed", message: `The file is not a sound age file: ${what}` })

const stanzaText = (stanza: AgeStanza): string => {
  const body = encodeBase64Unpadded(stanza.body)
  const lines = [`-> ${stanza.arguments.join(" ")}`]
  for (let start = 0; start <= body.length; start += columns) lines.push(body.slice(start, start + columns))
  return lines.join("\n")
}

const headerMac = (engine: Engine, fileKey: Uint8Array, signed: Uint8Array): Uint8Array =>
  engine.hmacSha256(engine.hkdfSha256(fileKey, new Uint8Array(0), utf8("header"), 32), signed)

/** The header's bytes, MAC and last line feed included. */
export const writeAgeHeader = (
  engine: Engine,
  fileKey: Uint8Array,
  stanzas: ReadonlyArray<AgeStanza>
): Uint8Array => {
  const signed = `${[version, ...stanzas.map(stanzaText)].join("\n")}\n---`
  const mac = headerMac(engine, fileKey, utf8(signed))
  return utf8(`${signed} ${encodeBase64Unpadded(mac)}\n`)
}

/** Whether the header was written by someone who knew the file key. */
export const isAgeHeaderAuthentic = (engine: Engine, fileKey: Uint8Array, header: AgeHeader): boolean =>
  equalBytes(headerMac(engine, fileKey, header.signed), header.mac)

/**
 * Where the header ends (the index behind its last line feed), or `undefined` while more bytes are needed. `bytes` is
 * the file from its start.
 *
 * @throws DecryptError as soon as the bytes cannot become a header within the bound.
 */
export const findAgeHeaderEnd = (bytes: Uint8Array): number | undefined => {
  const prefix = utf8(`${version}\n`)
  const comparable = Math.min(bytes.length, prefix.length)
  if (!equalBytes(bytes.subarray(0, comparable), prefix.subarray(0, comparable))) {
    throw malformedHeader(`its first line is not ${version}`)
  }
  const end = endOfMacLine(bytes.subarray(0, Limits.ageHeaderBytes))
  if (end === undefined && bytes.length >= Limits.ageHeaderBytes) {
    const message = `The age header has more than ${Limits.ageHeaderBytes} bytes`
    throw new DecryptError({ reason: "header_too_large", message })
  }
  return end
}

/** Only the MAC line begins with `---`: stanza lines begin with `->`, and base64 has no hyphen. */
const endOfMacLine = (bytes: Uint8Array): number | undefined => {
  let start = 0
  for (;;) {
    const feed = bytes.indexOf(0x0a, start)
    if (feed < 0) return undefined
    if (bytes[start] === 0x2d && bytes[start + 1] === 0x2d && bytes[start + 2] === 0x2d) return feed + 1
    start = feed + 1
  }
}

const asciiText = (bytes: Uint8Array): string => {
  let text = ""
  for (const byte of bytes) {
    if (byte !== 0x0a && (byte < 0x20 || byte > 0x7e))
      throw malformedHeader("its header holds a strange character")
    text += String.fromCharCode(byte)
  }
  return text
}

const decodeOrRefuse = (text: string): Uint8Array => {
  const bytes = decodeBase64Unpadded(text)
  if (bytes === undefined) throw malformedHeader("its header holds base64 that is not canonical")
  return bytes
}

/** Reads one stanza from `lines` at `index`; gives it with the index behind it. */
const readStanza = (lines: ReadonlyArray<string>, index: number): readonly [AgeStanza, number] => {
  const [arrow, ...words] = (lines[index] as string).split(" ")
  if (arrow !== "->" || words.length === 0 || words.includes("")) {
    throw malformedHeader("a stanza does not begin with an arrow and its arguments")
  }
  let body = ""
  for (let next = index + 1; next < lines.length; next++) {
    const line = lines[next] as string
    if (line.length > columns) throw malformedHeader(`a line of a stanza has more than ${columns} characters`)
    body += line
    if (line.length < columns) return [{ arguments: words, body: decodeOrRefuse(body) }, next + 1]
  }
  throw malformedHeader("a stanza has no last line")
}

/**
 * Takes a whole header apart; `bytes` ends where {@link findAgeHeaderEnd} says.
 *
 * @throws DecryptError
 */
export const parseAgeHeader = (bytes: Uint8Array): AgeHeader => {
  const lines = asciiText(bytes).slice(0, -1).split("\n")
  const macLine = lines.pop() as string
  const mac = /^--- (\S+)$/.exec(macLine)?.[1]
  if (mac === undefined) throw malformedHeader("its MAC line is wrong")
  const stanzas: Array<AgeStanza> = []
  let index = 1
  while (index < lines.length) {
    const [stanza, next] = readStanza(lines, index)
    if (stanzas.push(stanza) > Limits.ageStanzas) {
      throw new DecryptError({
        reason: "header_too_large",
        message: `The age header has more than ${Limits.ageStanzas} stanzas`
      })
    }
    index = next
  }
  if (stanzas.length === 0) throw malformedHeader("it is encrypted to nobody")
  const macValue = decodeOrRefuse(mac)
  if (macValue.length !== macBytes) throw malformedHeader("its MAC has a wrong length")
  return { stanzas, signed: bytes.slice(0, bytes.length - macLine.length - 1 + 3), mac: macValue }
}

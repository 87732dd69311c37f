/**
 * JSON that is read strictly and written in one way only (RFC 8785).
 *
 * `JSON.parse` keeps the last of two equal keys, replaces broken UTF-8, rounds large numbers and takes lone
 * surrogates: two readers may then see two documents under one signature. Here each of these is refused.
 *
 * @module
 */
import canonicalize from "canonicalize"
import { Result, Schema } from "effect"
import { Limits } from "../schemas/Limits.ts"
import { equalBytes, fromUtf8, utf8 } from "./Bytes.ts"
import { plainText } from "./PlainJson.ts"

/** Bytes were not taken as JSON. `offset` counts UTF-16 units from the start of the text. */
export class InvalidJson extends Schema.TaggedError<InvalidJson>()("InvalidJson", {
  reason: Schema.Literals([
    "too_large",
    "encoding",
    "syntax",
    "duplicate_key",
    "lone_surrogate",
    "unsafe_number",
    "too_deep",
    "not_canonical"
  ]),
  offset: Schema.Int,
  message: Schema.String
}) {}

type Reason = InvalidJson["reason"]

const explain: Record<Reason, string> = {
  too_large: "it is too large",
  encoding: "it is not UTF-8",
  syntax: "it does not follow the grammar of JSON",
  duplicate_key: "an object has the same key twice",
  lone_surrogate: "a string holds half a surrogate pair",
  unsafe_number: "a number cannot be held exactly",
  too_deep: "it is nested too deeply",
  not_canonical: "it is not in the canonical form of RFC 8785"
}

const invalid = (reason: Reason, offset: number): InvalidJson =>
  new InvalidJson({
    reason,
    offset,
    message: `The JSON is refused at character ${offset}: ${explain[reason]}`
  })

const numberPattern = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y
const isBlank = (code: number): boolean => code === 0x20 || code === 0x0a || code === 0x09 || code === 0x0d

/** A recursive descent through the text; `depthLimit` keeps the recursion short. */
class Reader {
  private at = 0
  private readonly text: string
  private readonly depthLimit: number

  constructor(text: string, depthLimit: number) {
    this.text = text
    this.depthLimit = depthLimit
  }

  document(): unknown {
    const value = this.value(0)
    this.skipBlank()
    if (this.at < this.text.length) throw this.refusal("syntax")
    return value
  }

  private refusal(reason: Reason, offset = this.at): InvalidJson {
    return invalid(reason, offset)
  }

  private skipBlank(): void {
    while (isBlank(this.text.charCodeAt(this.at))) this.at += 1
  }

  /** Takes the character if it is next, after blanks. */
  private accept(character: string): boolean {
    this.skipBlank()
    if (this.text[this.at] !== character) return false
    this.at += 1
    return true
  }

  private demand(character: string): void {
    if (!this.accept(character)) throw this.refusal("syntax")
  }

  private value(depth: number): unknown {
    this.skipBlank()
    const first = this.text[this.at]
    if (depth >= this.depthLimit && (first === "{" || first === "[")) throw this.refusal("too_deep")
    if (first === "{") return this.object(depth)
    if (first === "[") return this.array(depth)
    if (first === '"') return this.string()
    if (first === "t") return this.word("true", true)
    if (first === "f") return this.word("false", false)
    if (first === "n") return this.word("null", null)
    return this.number()
  }

  private word<A>(word: string, value: A): A {
    if (!this.text.startsWith(word, this.at)) throw this.refusal("syntax")
    this.at += word.length
    return value
  }

  private object(depth: number): unknown {
    this.demand("{")
    const members: Record<string, unknown> = {}
    if (this.accept("}")) return members
    do {
      this.skipBlank()
      const start = this.at
      const key = this.string()
      if (Object.hasOwn(members, key)) throw this.refusal("duplicate_key", start)
      this.demand(":")
      const value = this.value(depth + 1)
      // An assignment to "__proto__" would change the object's prototype instead of making a member.
      if (key === "__proto__") {
        Object.defineProperty(members, key, { value, configurable: true, enumerable: true, writable: true })
      } else members[key] = value
    } while (this.accept(","))
    this.demand("}")
    return members
  }

  private array(depth: number): unknown {
    this.demand("[")
    const items: Array<unknown> = []
    if (this.accept("]")) return items
    do items.push(this.value(depth + 1))
    while (this.accept(","))
    this.demand("]")
    return items
  }

  private string(): string {
    const start = this.at
    if (this.text[start] !== '"') throw this.refusal("syntax")
    this.at += 1
    let isEscaped = false
    for (;;) {
      const code = this.text.charCodeAt(this.at)
      // Beyond the end the code is NaN, which compares false with everything.
      if (!(code >= 0x20)) throw this.refusal("syntax")
      this.at += code === 0x5c ? 2 : 1
      if (code === 0x5c) isEscaped = true
      else if (code === 0x22) break
    }
    const decoded = isEscaped ? this.unescape(start) : this.text.slice(start + 1, this.at - 1)
    if (!decoded.isWellFormed()) throw this.refusal("lone_surrogate", start)
    return decoded
  }

  /** The quoted text is delimited; what its escapes may be is JSON.parse's to say. */
  private unescape(start: number): string {
    try {
      return JSON.parse(this.text.slice(start, this.at)) as string
    } catch {
      throw this.refusal("syntax", start)
    }
  }

  private number(): number {
    const start = this.at
    numberPattern.lastIndex = start
    const literal = numberPattern.exec(this.text)?.[0]
    if (literal === undefined) throw this.refusal("syntax")
    this.at += literal.length
    const value = Number(literal)
    const exact = Number.isFinite(value) && (!Number.isInteger(value) || Number.isSafeInteger(value))
    if (!exact) throw this.refusal("unsafe_number", start)
    return value
  }
}

/** Bounds for reading; the defaults are those of signed documents (`Limits.envelopeBytes`, `Limits.jsonDepth`). */
export interface JsonBounds {
  readonly maximumBytes?: number
  /** How many objects and arrays may stand in each other; 0 admits plain values only. */
  readonly maximumDepth?: number
}

/**
 * Reads JSON strictly: valid UTF-8 without byte order mark, no duplicate keys, no lone surrogates, no integer beyond
 * 2^53 - 1, no nesting deeper and no text longer than the bounds. A key `__proto__` is a member like any other.
 */
export const parseStrict = (
  bytes: Uint8Array,
  bounds: JsonBounds = {}
): Result.Result<unknown, InvalidJson> => {
  if (bytes.length > (bounds.maximumBytes ?? Limits.envelopeBytes))
    return Result.fail(invalid("too_large", 0))
  const text = fromUtf8(bytes)
  return text === undefined ? Result.fail(invalid("encoding", 0)) : read(text, bounds.maximumDepth)
}

const read = (text: string, maximumDepth: number = Limits.jsonDepth): Result.Result<unknown, InvalidJson> => {
  try {
    return Result.succeed(new Reader(text, maximumDepth).document())
  } catch (error) {
    if (error instanceof InvalidJson) return Result.fail(error)
    throw error
  }
}

/**
 * The RFC 8785 form of a JSON value. Members that are `undefined` are left out, as `JSON.stringify` does.
 *
 * @throws TypeError for what {@link parseStrict} would refuse to read back: no document leaves that cannot return
 */
export const canonicalBytes = (value: unknown): Uint8Array => {
  const plain = plainText(value, Limits.jsonDepth)
  if (plain !== undefined) return utf8(plain)
  const text = canonicalText(value)
  const readable = read(text)
  if (Result.isFailure(readable))
    throw new TypeError(`This value cannot be signed. ${readable.failure.message}`)
  return utf8(text)
}

const canonicalText = (value: unknown): string => {
  let text: string | undefined
  try {
    text = canonicalize(value)
  } catch (cause) {
    throw new TypeError("This value cannot be signed: it has no JSON form", { cause })
  }
  if (text === undefined) throw new TypeError("This value cannot be signed: it has no JSON form")
  return text
}

/**
 * What `JSON.parse` makes of a text, where that is written again letter for letter: then it holds no key twice, no broken
 * surrogate, no rounded number and nothing too deep. `undefined` where it is not, for whatever reason.
 */
const parseRepeatable = (text: string, maximumDepth: number): unknown => {
  try {
    const value: unknown = JSON.parse(text)
    return plainText(value, maximumDepth) === text ? value : undefined
  } catch {
    return undefined
  }
}

/** Reads JSON that must be, byte for byte, its own canonical form: what every signed document is. */
export const parseCanonical = (
  bytes: Uint8Array,
  bounds: JsonBounds = {}
): Result.Result<unknown, InvalidJson> => {
  if (bytes.length <= (bounds.maximumBytes ?? Limits.envelopeBytes)) {
    const text = fromUtf8(bytes)
    const value =
      text === undefined ? undefined : parseRepeatable(text, bounds.maximumDepth ?? Limits.jsonDepth)
    if (value !== undefined) return Result.succeed(value)
  }
  // The slow way, which says what is wrong.
  return Result.flatMap(parseStrict(bytes, bounds), (value) =>
    equalBytes(utf8(canonicalText(value)), bytes)
      ? Result.succeed(value)
      : Result.fail(invalid("not_canonical", 0))
  )
}

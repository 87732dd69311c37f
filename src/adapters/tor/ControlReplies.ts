/**
 * What tor says on its control connection, as data: replies and events from bytes, words and quoted fields from a line.
 * The grammar is that of tor's control-spec, 2.3 ("Replies from Tor to the controller") and 2.1.1 (quoted strings).
 *
 * @module
 */

/** A whole reply, or a whole event (status 650). */
export interface ControlReply {
  /** 250 and its like are good, 4xx and 5xx are not, 650 is an event. */
  readonly status: number
  /** Without status and line ends; the data below a line is joined to it by line feeds, and to `key=` directly. */
  readonly lines: ReadonlyArray<string>
}

export interface ReplyReaderOptions {
  /** One reply may have so many bytes. */
  readonly maximumBytes: number
  readonly onReply: (reply: ControlReply) => void
  /** What comes is no control protocol, or too much of it; nothing is read any more. */
  readonly onBroken: (reason: string) => void
}

interface Unfinished {
  status: number
  lines: Array<string>
  bytes: number
}

const eventStatus = 650

/** Reads bytes as they come. Events may stand between the lines of a reply, but never within data. */
export const makeReplyReader = (options: ReplyReaderOptions): ((bytes: Buffer) => void) => {
  let rest = Buffer.alloc(0)
  let isBroken = false
  let reply: Unfinished | undefined
  let event: Unfinished | undefined
  let data: { readonly into: Unfinished; readonly head: string; readonly lines: Array<string> } | undefined

  const broken = (reason: string): void => {
    isBroken = true
    rest = Buffer.alloc(0)
    options.onBroken(reason)
  }

  const grow = (unfinished: Unfinished, bytes: number): boolean => {
    unfinished.bytes += bytes
    if (unfinished.bytes <= options.maximumBytes) return true
    broken(`a reply has more than ${options.maximumBytes} bytes`)
    return false
  }

  const takeData = (line: string): void => {
    if (data === undefined || !grow(data.into, line.length + 1)) return
    if (line !== ".") {
      data.lines.push(line.startsWith(".") ? line.slice(1) : line)
      return
    }
    const { head, into, lines } = data
    // `250+key=` is completed by its data; the first line of an event stands by itself.
    into.lines.push([head, lines.join("\n")].join(head.endsWith("=") ? "" : "\n"))
    data = undefined
  }

  const takeLine = (line: string): void => {
    const match = /^([2-6]\d\d)([-+ ])/.exec(line)
    if (match === null) return broken(`this is no line of the control protocol: ${line.slice(0, 60)}`)
    const status = Number(match[1])
    const isEvent = status === eventStatus
    const unfinished = (isEvent ? event : reply) ?? { status, lines: [], bytes: 0 }
    unfinished.status = status
    if (!grow(unfinished, line.length)) return
    if (isEvent) event = unfinished
    else reply = unfinished
    const text = line.slice(4)
    if (match[2] === "+") {
      data = { into: unfinished, head: text, lines: [] }
      return
    }
    unfinished.lines.push(text)
    if (match[2] === "-") return
    if (isEvent) event = undefined
    else reply = undefined
    options.onReply({ status, lines: unfinished.lines })
  }

  return (bytes) => {
    if (isBroken) return
    const all = rest.length === 0 ? bytes : Buffer.concat([rest, bytes])
    let start = 0
    for (let end = all.indexOf(0x0a); end >= 0 && !isBroken; end = all.indexOf(0x0a, start)) {
      const line = all.toString("utf8", start, end > start && all[end - 1] === 0x0d ? end - 1 : end)
      start = end + 1
      if (data === undefined) takeLine(line)
      else takeData(line)
    }
    if (isBroken) return
    rest = Buffer.from(all.subarray(start))
    if (rest.length > options.maximumBytes) broken(`a line has more than ${options.maximumBytes} bytes`)
  }
}

export interface ControlWords {
  /** Words without a name, in their order. */
  readonly words: ReadonlyArray<string>
  /** `NAME=value` and `NAME="quoted value"`; of two with the same name the last. */
  readonly fields: Readonly<Record<string, string>>
}

const escapes: Readonly<Record<string, string>> = { n: "\n", r: "\r", t: "\t" }

/** What stands between the quotes of a quoted string. Octal escapes are bytes, of which several may make one letter. */
const unquote = (inner: string): string =>
  inner.replace(/((?:\\[0-7]{1,3})+)|\\([\s\S])/g, (_, octal: string | undefined, letter: string) =>
    octal === undefined
      ? (escapes[letter] ?? letter)
      : Buffer.from(
          octal
            .slice(1)
            .split("\\")
            .map((digits) => Number.parseInt(digits, 8))
        ).toString()
  )

/** A value that is the whole rest of a line, as GETCONF gives it: quoted where tor finds that necessary. */
export const controlValue = (text: string): string => {
  const inner = /^"((?:\\[\s\S]|[^"\\])*)"$/.exec(text)?.[1]
  return inner === undefined ? text : unquote(inner)
}

/** Takes a line apart: `BOOTSTRAP PROGRESS=5 SUMMARY="Connecting to a relay"`. */
export const controlWords = (line: string): ControlWords => {
  const words: Array<string> = []
  const fields: Record<string, string> = Object.create(null)
  const part = /([A-Za-z0-9_./-]+)="((?:\\[\s\S]|[^"\\])*)"|(\S+)/g
  for (const [, name, quoted, plain] of line.matchAll(part)) {
    if (name !== undefined) fields[name] = unquote(quoted ?? "")
    else if (plain !== undefined) {
      const cut = plain.indexOf("=")
      if (cut > 0) fields[plain.slice(0, cut)] = plain.slice(cut + 1)
      else words.push(plain)
    }
  }
  return { words, fields }
}

/** A text as a quoted string of the protocol. Line ends have no place in commands and are written as escapes. */
export const controlQuoted = (text: string): string =>
  `"${text.replace(/[\\"]/g, "\\$&").replace(/\n/g, "\\n").replace(/\r/g, "\\r")}"`

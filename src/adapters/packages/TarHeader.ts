/**
 * The 512-byte headers of POSIX tar (ustar, with pax records for long paths), as little of them as packages need: plain
 * files and folders, one spelling for each, anything else refused before a byte is written.
 *
 * They are written by the `tar` package and read by code of our own. `tar` reads leniently, which is right for archives
 * from everywhere and wrong for these: its `Header` takes digits with rubbish behind them for a number, replaces what is
 * not UTF-8, makes a folder of a file named `x/` and says that folders have no content whatever their size field says;
 * its `Pax` skips malformed records and lets the last of two win. To be strict, every one of these fields would have to be
 * read a second time. Both `tar` and GNU tar stand as peers in the tests, in both directions.
 *
 * @module
 */
import { Header } from "tar/header"
import { Pax } from "tar/pax"
import { concatBytes, fromUtf8 } from "../../crypto/Bytes.ts"

export const tarBlockBytes = 512

/** A header that a package may not hold; the message says why. */
export class TarRefused extends Error {
  override readonly name = "TarRefused"
}

/** A plain file or folder. `path` has no trailing slash. */
export interface TarEntry {
  readonly kind: "file" | "folder"
  readonly path: string
  readonly sizeBytes: number
  readonly executable: boolean
}

/** What a header block says: an entry, or that a pax record for the next entry follows. */
export type TarHeader =
  | (TarEntry & { readonly _tag: "Entry" })
  | { readonly _tag: "Pax"; readonly sizeBytes: number }

/** The most a pax header may hold: one path, and times that other writers add. */
export const paxBytes = 4096

const field = {
  name: [0, 100],
  mode: [100, 8],
  size: [124, 12],
  checksum: [148, 8],
  typeflag: [156, 1],
  linkname: [157, 100],
  magic: [257, 8],
  prefix: [345, 155]
} as const

const part = (block: Uint8Array, [offset, length]: readonly [number, number]): Uint8Array =>
  block.subarray(offset, offset + length)

/** The sum of a header's bytes, its own field counted as blanks. */
const checksum = (block: Uint8Array): number => {
  let sum = 8 * 0x20
  for (let index = 0; index < tarBlockBytes; index++) {
    if (index < field.checksum[0] || index >= field.checksum[0] + field.checksum[1])
      sum += block[index] as number
  }
  return sum
}

/** How many zeros follow content of a length, so that the next header stands on a block. */
export const tarPadding = (sizeBytes: number): number =>
  (tarBlockBytes - (sizeBytes % tarBlockBytes)) % tarBlockBytes

/** Shorter paths stand whole in a header's name field; `tar` spells longer ones in ways of its own ("./" before them). */
const nameFieldBytes = field.name[1]

/**
 * The header blocks of an entry: no owner, no time, mode 0644 or 0755. A path that is long or not plain ASCII stands in a
 * pax record, whole.
 */
export const writeTarHeader = (entry: TarEntry): Uint8Array => {
  const isFolder = entry.kind === "folder"
  const path = isFolder ? `${entry.path}/` : entry.path
  const block = Buffer.alloc(tarBlockBytes)
  const needsPax = new Header({
    path,
    type: isFolder ? "Directory" : "File",
    mode: isFolder || entry.executable ? 0o755 : 0o644,
    uid: 0,
    gid: 0,
    size: entry.sizeBytes,
    mtime: new Date(0)
  }).encode(block)
  return needsPax || path.length >= nameFieldBytes ? concatBytes(new Pax({ path }).encode(), block) : block
}

/** What ends an archive. */
export const tarEnd = (): Uint8Array => new Uint8Array(2 * tarBlockBytes)

const untilNul = (bytes: Uint8Array): Uint8Array => {
  const end = bytes.indexOf(0)
  return end < 0 ? bytes : bytes.subarray(0, end)
}

const textField = (block: Uint8Array, where: readonly [number, number]): string => {
  const text = fromUtf8(untilNul(part(block, where)))
  if (text === undefined) throw new TarRefused("a path is not valid UTF-8")
  return text
}

/** Octal digits, ended by NUL or blank. Sizes in base 256 are for files beyond 8 GiB, which no package holds. */
const octalField = (block: Uint8Array, where: readonly [number, number], what: string): number => {
  const text = String.fromCharCode(...part(block, where))
  const digits = /^ *([0-7]+)[\u0000 ]*$/.exec(text)?.[1]
  if (digits === undefined) throw new TarRefused(`a header's ${what} is not an octal number`)
  return Number.parseInt(digits, 8)
}

const kindNames: Readonly<Record<string, string>> = {
  "1": "a hard link",
  "2": "a symbolic link",
  "3": "a character device",
  "4": "a block device",
  "6": "a named pipe",
  "7": "a contiguous file",
  g: "a global pax header",
  K: "a GNU long link",
  L: "a GNU long name",
  M: "a GNU volume",
  S: "a sparse file",
  V: "a GNU label"
}

/**
 * Reads a header block that is not all zeros. `paxPath` replaces its path.
 *
 * @throws TarRefused for anything but a sound header of a plain file, a folder or a pax record
 */
export const readTarHeader = (block: Uint8Array, paxPath: string | undefined): TarHeader => {
  if (octalField(block, field.checksum, "checksum") !== checksum(block)) {
    throw new TarRefused("a header's checksum is wrong")
  }
  if (String.fromCharCode(...part(block, field.magic)) !== "ustar\u000000") {
    throw new TarRefused("a header is not POSIX ustar (with GNU tar, say --format=ustar)")
  }
  const sizeBytes = octalField(block, field.size, "size")
  const typeflag = String.fromCharCode(...part(block, field.typeflag))
  if (typeflag === "x") {
    if (paxPath !== undefined || sizeBytes > paxBytes)
      throw new TarRefused("a pax header is too large or stands twice")
    return { _tag: "Pax", sizeBytes }
  }
  const prefix = textField(block, field.prefix)
  const name = textField(block, field.name)
  const written = paxPath ?? (prefix === "" ? name : `${prefix}/${name}`)
  if (typeflag !== "0" && typeflag !== "5") {
    const kind = kindNames[typeflag] ?? `an entry of the unknown kind ${JSON.stringify(typeflag)}`
    throw new TarRefused(`${JSON.stringify(written)} is ${kind}`)
  }
  if (part(block, field.linkname).some((byte) => byte !== 0)) {
    throw new TarRefused(`${JSON.stringify(written)} names a link's target`)
  }
  if (typeflag === "0") {
    const executable = (octalField(block, field.mode, "mode") & 0o100) !== 0
    return { _tag: "Entry", kind: "file", path: written, sizeBytes, executable }
  }
  if (sizeBytes !== 0) throw new TarRefused(`the folder ${JSON.stringify(written)} has content`)
  // Exactly one slash ends a folder's name; more of them stay and are refused as an unsafe path.
  return { _tag: "Entry", kind: "folder", path: written.replace(/\/$/, ""), sizeBytes, executable: true }
}

/** Records that other writers add and that mean nothing here. */
const ignoredRecords: ReadonlySet<string> = new Set(["mtime", "atime", "ctime"])

/**
 * The path in the content of a pax header, or undefined where it holds times only.
 *
 * @throws TarRefused for any other record, or a malformed one
 */
export const readPaxPath = (content: Uint8Array): string | undefined => {
  let path: string | undefined
  let offset = 0
  while (offset < content.length) {
    const blank = content.indexOf(0x20, offset)
    const digits = blank < 0 ? "" : String.fromCharCode(...content.subarray(offset, blank))
    const end = /^[1-9][0-9]{0,4}$/.test(digits) ? offset + Number(digits) : Number.NaN
    if (!(end <= content.length && end > blank + 1) || content[end - 1] !== 0x0a) {
      throw new TarRefused("a pax header is malformed")
    }
    const [, key, value] =
      /^([^=]+)=([\s\S]*)$/.exec(fromUtf8(content.subarray(blank + 1, end - 1)) ?? "") ?? []
    if (key === undefined || value === undefined) throw new TarRefused("a pax header is malformed")
    if (key === "path") {
      if (path !== undefined || value === "") throw new TarRefused("a pax header names no path, or two")
      path = value
    } else if (!ignoredRecords.has(key)) {
      throw new TarRefused(`a pax header holds ${JSON.stringify(key)}`)
    }
    offset = end
  }
  return path
}

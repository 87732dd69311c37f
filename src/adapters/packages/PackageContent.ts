/**
 * What may stand in a package, judged as its tar comes along: the manifest first, plain files and folders only, safe
 * paths, bounds on bytes and entries, every file as the manifest says. Pure: it turns bytes into steps for whoever
 * writes them down, and throws {@link PackageRefused} at the first thing that is wrong.
 *
 * @module
 */
import { Result, Schema } from "effect"
import { concatBytes, utf8 } from "../../crypto/Bytes.ts"
import { parseStrict } from "../../crypto/CanonicalJson.ts"
import type { Engine, Hasher } from "../../crypto/Engine.ts"
import { encodeHex } from "../../crypto/Hex.ts"
import { PackageRefused } from "../../ports/PackageStore.ts"
import type { Digest } from "../../schemas/Ids.ts"
import { Limits } from "../../schemas/Limits.ts"
import { Manifest, manifestPath, PackagePath } from "../../schemas/Manifest.ts"
import type { RefusalCode } from "../../schemas/Refusals.ts"
import { type TarEntry, TarRefused } from "./TarHeader.ts"
import { tarReader } from "./TarReader.ts"

/** A step of unpacking. Folders come before what they hold; data belong to the file begun last. */
export type UnpackStep =
  | { readonly _tag: "Folder"; readonly path: string }
  | { readonly _tag: "File"; readonly path: string; readonly executable: boolean }
  | { readonly _tag: "Data"; readonly bytes: Uint8Array }
  | { readonly _tag: "FileEnd" }

/** Bounds from the signed order or receipt. */
export interface ContentBounds {
  /** Sum of the sizes of all files. */
  readonly unpackedBytes: number
  /** Files and folders, those included that are only named on the way to a file. */
  readonly entries: number
}

/** What was there in the end. */
export interface ContentSummary {
  readonly entries: number
  readonly unpackedBytes: number
}

export interface ContentReader {
  /** @throws PackageRefused */
  readonly push: (bytes: Uint8Array) => ReadonlyArray<UnpackStep>
  /** @throws PackageRefused when something is missing at the end */
  readonly end: () => ContentSummary
}

/** A refusal; `detail` names what was found, for people. */
export const refused = (code: RefusalCode, detail: string): PackageRefused =>
  new PackageRefused({ code, detail })

const quoted = (path: string): string => JSON.stringify(path.length > 200 ? `${path.slice(0, 200)}…` : path)

const isPackagePath = Schema.is(PackagePath)
/** The longest name of one file or folder that Linux file systems take, in bytes. */
const nameBytes = 255

/**
 * Whether a path is safe to create below a folder: relative, no `..`, control or format character, backslash, and no
 * name that a file system would refuse.
 */
export const isSafePath = (path: string): boolean =>
  isPackagePath(path) && path.split("/").every((name) => utf8(name).length <= nameBytes)

/**
 * Paths with one key are one file on systems that ignore case or the way accents are written; two of them in one package
 * are a trap.
 */
const folded = (path: string): string => path.normalize("NFC").toLowerCase().normalize("NFC")

const decodeManifest = Schema.decodeUnknownResult(Manifest, { onExcessProperty: "error" })

/**
 * Reads a manifest's bytes.
 *
 * @throws PackageRefused `manifest_malformed`
 */
export const readManifest = (bytes: Uint8Array): Manifest => {
  const json = parseStrict(bytes, { maximumBytes: Limits.manifestBytes })
  if (Result.isFailure(json)) throw refused("manifest_malformed", json.failure.message)
  const decoded = decodeManifest(json.success)
  if (Result.isFailure(decoded)) throw refused("manifest_malformed", decoded.failure.message.slice(0, 1000))
  if (Object.hasOwn(decoded.success.files, manifestPath)) {
    throw refused("manifest_malformed", `it lists ${manifestPath} itself`)
  }
  return decoded.success
}

/** Remembers every path, counts against the bounds and refuses what is unsafe. */
const pathBook = (bounds: ContentBounds) => {
  const kinds = new Map<string, { readonly path: string; readonly kind: TarEntry["kind"] }>()
  let unpackedBytes = 0

  const add = (path: string, kind: TarEntry["kind"]): void => {
    if (kinds.size >= bounds.entries)
      throw refused("payload_entries", `there are more than ${bounds.entries} entries`)
    kinds.set(folded(path), { path, kind })
  }
  /** Folders on the way that no entry named: they are made and counted. */
  const addParents = (path: string): ReadonlyArray<string> => {
    const made: Array<string> = []
    for (let slash = path.indexOf("/"); slash >= 0; slash = path.indexOf("/", slash + 1)) {
      const parent = path.slice(0, slash)
      const known = kinds.get(folded(parent))
      if (known === undefined) {
        add(parent, "folder")
        made.push(parent)
      } else if (known.path !== parent || known.kind !== "folder") {
        throw refused("entry_forbidden", `${quoted(path)} collides with ${quoted(known.path)}`)
      }
    }
    return made
  }
  return {
    /** Takes in an entry; gives the folders to make before it. */
    enter: (entry: TarEntry): ReadonlyArray<string> => {
      if (!isSafePath(entry.path))
        throw refused("entry_forbidden", `the path ${quoted(entry.path)} is not safe`)
      const known = kinds.get(folded(entry.path))
      if (known !== undefined) {
        const isSameFile = known.path === entry.path && known.kind === "file" && entry.kind === "file"
        throw isSameFile
          ? refused("file_unlisted", `${quoted(entry.path)} stands in it twice`)
          : refused("entry_forbidden", `${quoted(entry.path)} collides with ${quoted(known.path)}`)
      }
      const parents = addParents(entry.path)
      add(entry.path, entry.kind)
      unpackedBytes += entry.sizeBytes
      if (unpackedBytes > bounds.unpackedBytes) {
        throw refused("payload_unpacked_size", `its files have more than ${bounds.unpackedBytes} bytes`)
      }
      return parents
    },
    summary: (): ContentSummary => ({ entries: kinds.size, unpackedBytes })
  }
}

/** Judges files: where they may stand and what they must hold. */
interface FileRule {
  /** Whether the file is to be executable. */
  readonly begin: (entry: TarEntry) => boolean
  readonly data: (bytes: Uint8Array) => void
  readonly end: () => void
  readonly finish: () => void
}

const contentReader = (bounds: ContentBounds, rule: FileRule): ContentReader => {
  const tar = tarReader()
  const book = pathBook(bounds)
  let current: TarEntry | undefined

  const begin = (entry: TarEntry, steps: Array<UnpackStep>): void => {
    current = entry
    const parents = book.enter(entry)
    const executable = rule.begin(entry)
    for (const path of parents) steps.push({ _tag: "Folder", path })
    const { path } = entry
    steps.push(entry.kind === "folder" ? { _tag: "Folder", path } : { _tag: "File", path, executable })
  }

  const readTar = (bytes: Uint8Array) => {
    try {
      return tar.push(bytes)
    } catch (error) {
      throw error instanceof TarRefused ? refused("entry_forbidden", error.message) : error
    }
  }

  return {
    push: (bytes) => {
      const steps: Array<UnpackStep> = []
      for (const event of readTar(bytes)) {
        if (event._tag === "Entry") begin(event.entry, steps)
        else if (event._tag === "Data") {
          rule.data(event.bytes)
          steps.push(event)
        } else if (current?.kind === "file") {
          rule.end()
          steps.push({ _tag: "FileEnd" })
        }
      }
      return steps
    },
    end: () => {
      if (!tar.isComplete()) throw refused("payload_decompress", "the archive is cut off")
      rule.finish()
      return book.summary()
    }
  }
}

/** A package's content, and its manifest once that has gone by (undefined before). */
export interface PackageReader extends ContentReader {
  readonly manifest: () => Manifest | undefined
}

/** Begins to judge a package: manifest first, then exactly the files it lists. */
export const packageReader = (engine: Engine, bounds: ContentBounds): PackageReader => {
  let manifest: Manifest | undefined
  let manifestBytes: Uint8Array | undefined
  let current: { readonly path: string; readonly digest: Digest; readonly hasher: Hasher } | undefined
  let filesSeen = 0

  const beginManifest = (entry: TarEntry): void => {
    if (entry.path !== manifestPath || entry.kind !== "file") {
      throw refused("manifest_missing", `it begins with ${quoted(entry.path)}`)
    }
    if (entry.sizeBytes > Limits.manifestBytes) {
      throw refused(
        "manifest_malformed",
        `it has ${entry.sizeBytes} bytes, more than ${Limits.manifestBytes}`
      )
    }
    manifestBytes = new Uint8Array(0)
  }

  const beginFile = (known: Manifest, { path, sizeBytes }: TarEntry): boolean => {
    const listed = Object.hasOwn(known.files, path) ? known.files[path] : undefined
    if (listed === undefined) throw refused("file_unlisted", `the manifest does not list ${quoted(path)}`)
    if (listed.size_bytes !== sizeBytes) {
      throw refused("file_digest", `${quoted(path)} has ${sizeBytes} bytes, not ${listed.size_bytes}`)
    }
    current = { path, digest: listed.digest, hasher: engine.hasher() }
    return listed.executable
  }

  const endFile = (): void => {
    if (current === undefined) return
    const digest = `sha256:${encodeHex(current.hasher.digest())}`
    if (digest !== current.digest)
      throw refused("file_digest", `${quoted(current.path)} is not the file that was listed`)
    current = undefined
    filesSeen += 1
  }

  const reader = contentReader(bounds, {
    begin: (entry) => {
      if (manifest === undefined) {
        beginManifest(entry)
        return false
      }
      return entry.kind === "file" ? beginFile(manifest, entry) : true
    },
    data: (bytes) => {
      if (manifestBytes !== undefined) manifestBytes = concatBytes(manifestBytes, bytes)
      else current?.hasher.update(bytes)
    },
    end: () => {
      if (manifestBytes === undefined) return endFile()
      manifest = readManifest(manifestBytes)
      manifestBytes = undefined
    },
    finish: () => {
      if (manifest === undefined) throw refused("manifest_missing", "it is empty")
      const listed = Object.keys(manifest.files).length
      if (filesSeen !== listed)
        throw refused("file_missing", `it holds ${filesSeen} of the ${listed} files listed`)
    }
  })
  return { ...reader, manifest: () => manifest }
}

/** Begins to judge returned artifacts: plain files at safe paths, whatever they hold. Their digest was signed whole. */
export const artifactsReader = (bounds: ContentBounds): ContentReader =>
  contentReader(bounds, {
    begin: (entry) => entry.executable,
    data: () => {},
    end: () => {},
    finish: () => {}
  })

/** Bounds that nothing may exceed, whatever an order or receipt says. */
export const boundedBy = (bounds: ContentBounds, limits: ContentBounds): ContentBounds => ({
  unpackedBytes: Math.min(bounds.unpackedBytes, limits.unpackedBytes),
  entries: Math.min(bounds.entries, limits.entries)
})

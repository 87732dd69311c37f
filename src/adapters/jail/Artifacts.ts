/**
 * What a job left below /work/out, judged by the host once no process of the job lives any more, so that nothing can
 * change between look and use. Names, kinds and sizes are the job's and hostile until checked.
 */
import type { Stats } from "node:fs"
import { chmod, lstat, readdir } from "node:fs/promises"
import { Effect, Schema } from "effect"
import type { JailArtifact, RefusedArtifact } from "../../schemas/JailProfile.ts"
import { Limits } from "../../schemas/Limits.ts"
import { PackagePath } from "../../schemas/Manifest.ts"

export interface ArtifactBounds {
  readonly bytes: number
  readonly entries: number
}

export interface ArtifactList {
  readonly artifacts: ReadonlyArray<JailArtifact>
  /** The first hundred. */
  readonly refused: ReadonlyArray<RefusedArtifact>
  readonly refusedCount: number
}

const refusedShown = 100
const nameShown = 300

/** A name as printable text: what could move a cursor, hide or reverse text is shown as an escape. */
export const printableName = (name: string): string => {
  const escaped = name.replace(
    /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\\]/gu,
    (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`
  )
  return escaped.length <= nameShown ? escaped : `${escaped.slice(0, nameShown - 1)}…`
}

const isPackagePath = Schema.is(PackagePath)
const decoder = new TextDecoder("utf-8", { fatal: true })

const decodeName = (bytes: Buffer): string | null => {
  try {
    return decoder.decode(bytes)
  } catch {
    return null
  }
}

/** Walks one tree; every step is bounded by the inodes of the job's file system and by `Limits.packageDepth`. */
class Collector {
  readonly artifacts: Array<JailArtifact> = []
  readonly refused: Array<RefusedArtifact> = []
  refusedCount = 0
  private bytesLeft: number
  private readonly root: string
  private readonly bounds: ArtifactBounds

  constructor(root: string, bounds: ArtifactBounds) {
    this.root = root
    this.bounds = bounds
    this.bytesLeft = bounds.bytes
  }

  refuse(name: string, reason: RefusedArtifact["reason"]): void {
    this.refusedCount += 1
    if (this.refused.length < refusedShown) this.refused.push({ name: printableName(name), reason })
  }

  async folder(prefix: string, depth: number): Promise<void> {
    const path = prefix === "" ? this.root : `${this.root}/${prefix.slice(0, -1)}`
    await this.grant(path, 0o500)
    const names = await readdir(path, { encoding: "buffer" })
    names.sort(Buffer.compare)
    for (const bytes of names) {
      const name = decodeName(bytes)
      if (name === null) this.refuse(`${prefix}${bytes.toString("latin1")}`, "bad_name")
      else await this.entry(`${prefix}${name}`, depth)
    }
  }

  /** The job may have taken its owner's rights away; root needs none. */
  private async grant(path: string, needed: number): Promise<void> {
    const { mode } = await lstat(path)
    if ((mode & needed) !== needed) await chmod(path, (mode & 0o777) | needed)
  }

  private async entry(path: string, depth: number): Promise<void> {
    if (depth > Limits.packageDepth) return this.refuse(path, "too_deep")
    if (!isPackagePath(path)) return this.refuse(path, "bad_name")
    try {
      const found = await lstat(`${this.root}/${path}`)
      if (found.isDirectory()) await this.folder(`${path}/`, depth + 1)
      else if (found.isFile()) await this.file(path, found)
      else this.refuse(path, "not_a_file")
    } catch {
      this.refuse(path, "unreadable")
    }
  }

  private async file(path: string, found: Stats): Promise<void> {
    if (this.artifacts.length >= this.bounds.entries) return this.refuse(path, "too_many")
    if (found.size > this.bytesLeft) return this.refuse(path, "too_large")
    await this.grant(`${this.root}/${path}`, 0o400)
    this.bytesLeft -= found.size
    this.artifacts.push({
      path,
      size_bytes: found.size,
      executable: (found.mode & 0o111) !== 0,
      host_path: `${this.root}/${path}`
    })
  }
}

/**
 * Lists the regular files below `root`, in the order of their names, up to the bounds. Links are not followed, nothing
 * but plain files is opened later. An unreadable or replaced root yields an empty list and one refusal.
 */
export const collectArtifacts = (root: string, bounds: ArtifactBounds): Effect.Effect<ArtifactList> =>
  Effect.promise(async () => {
    const collector = new Collector(root, bounds)
    try {
      if ((await lstat(root)).isDirectory()) await collector.folder("", 1)
      else collector.refuse("/work/out", "not_a_file")
    } catch {
      collector.refuse("/work/out", "unreadable")
    }
    const { artifacts, refused, refusedCount } = collector
    return { artifacts, refused, refusedCount }
  })

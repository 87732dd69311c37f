/** What the jail is told at its making, and what it finds out about the host once, for all runs. No Effect: see JobHost.ts. */
import { lstatSync, readFileSync, readlinkSync } from "node:fs"
import { type ControlGroups, openControlGroups } from "./ControlGroups.ts"
import type { LaunchPlan } from "./Launch.ts"

/** How to build the jail. */
export interface JailOptions {
  /** Name in the PATH or absolute path of bubblewrap. Default `bwrap`. */
  readonly bwrap?: string
  /** First host uid (and gid) for jobs where this process is root; slot n gets this plus n. Default 64000. */
  readonly uidBase?: number
  /** How many jobs may run at once. Default 8. */
  readonly slots?: number
  /**
   * Whether the control group of this process is delegated to it. Default: where it belongs to this process's own,
   * unprivileged uid. Root owns every group, so root must be told.
   */
  readonly delegatedControlGroup?: boolean
  /** The client's uid where it is neither root nor this process's. Default null. */
  readonly viewerUid?: number | null
  /** What may be granted: devices by name, and read-only paths. Default nothing. */
  readonly devices?: Readonly<Record<string, string>>
  readonly readOnly?: ReadonlyArray<string>
  /** What no granted path may touch, beside the system's own folders: state, keys, configuration. */
  readonly privatePaths?: ReadonlyArray<string>
}

/** What the adapter knows of itself once, for all runs. */
export interface JailSetting {
  readonly bwrap: string
  readonly uidBase: number | null
  readonly viewerUid: number | null
  readonly slots: ReadonlyArray<number>
  readonly taken: Set<number>
  readonly rootLinks: LaunchPlan["rootLinks"]
  readonly rootFolders: LaunchPlan["rootFolders"]
  readonly hardLimits: LaunchPlan["hardLimits"]
  readonly controlGroups: ControlGroups | null
  readonly devices: Readonly<Record<string, string>>
  readonly readOnly: ReadonlyArray<string>
  readonly privatePaths: ReadonlyArray<string>
}

/** Which of the folders beside /usr are links into it (a merged root), and which stand for themselves. */
const hostRoot = (): Pick<JailSetting, "rootLinks" | "rootFolders"> => {
  const links: Array<readonly [string, string]> = []
  const folders: Array<string> = []
  for (const name of ["bin", "sbin", "lib", "lib32", "lib64", "libx32"]) {
    const found = lstatSync(`/${name}`, { throwIfNoEntry: false })
    if (found?.isSymbolicLink()) links.push([name, readlinkSync(`/${name}`)])
    else if (found?.isDirectory()) folders.push(name)
  }
  return { rootLinks: links, rootFolders: folders }
}

/** The lines of /proc/self/limits that matter, by prlimit's names. Those without a number are unlimited. */
const limitLines = {
  as: "Max address space",
  data: "Max data size",
  cpu: "Max cpu time",
  nproc: "Max processes",
  fsize: "Max file size",
  nofile: "Max open files"
} as const

/** This process's own hard limits; only root may raise one, and root's jobs are not root. */
const hardLimits = (): Record<string, number> => {
  const text = readFileSync("/proc/self/limits", "latin1")
  const found = Object.entries(limitLines).map(([name, line]) => [
    name,
    Number(new RegExp(`^${line} +\\S+ +(\\S+)`, "m").exec(text)?.[1])
  ])
  return Object.fromEntries(found.filter(([, value]) => !Number.isNaN(value)))
}

/** Looks at the host once; starts nothing but takes possession of a delegated control group. */
export const jailSetting = async (options: JailOptions): Promise<JailSetting> => {
  const root = process.getuid?.() === 0
  return {
    bwrap: options.bwrap ?? "bwrap",
    uidBase: root ? (options.uidBase ?? 64_000) : null,
    viewerUid: root ? (options.viewerUid ?? null) : null,
    slots: Array.from({ length: options.slots ?? 8 }, (_, index) => index),
    taken: new Set<number>(),
    ...hostRoot(),
    hardLimits: hardLimits(),
    controlGroups: await openControlGroups(options.delegatedControlGroup ?? !root),
    devices: options.devices ?? {},
    readOnly: options.readOnly ?? [],
    privatePaths: options.privatePaths ?? []
  }
}

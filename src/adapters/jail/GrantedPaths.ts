/**
 * What of the host a job may see beyond the bare jail: devices by the name the owner gave them, and read-only paths. Each is
 * judged anew for every run, by descriptors rather than by names, and what the chain has bound is compared with what was
 * judged here (JobHost.ts): a folder that is swapped for a link in between is refused. No Effect: the warden loads this.
 */
import { closeSync, constants, fstatSync, opendirSync, openSync, readlinkSync, realpathSync } from "node:fs"
import { join, normalize } from "node:path"
import type { Grants } from "../../schemas/Manifest.ts"
import type { GrantedPath } from "./Launch.ts"

/** Something is asked for that is not given; the message says what and why. */
export class GrantRefused extends Error {
  override readonly name = "GrantRefused"
}

/** A path as it was judged. */
export interface LentPath extends GrantedPath {
  readonly device: bigint
  readonly inode: bigint
  /** The device's name; null for a read-only path. */
  readonly name: string | null
  /** The group by which a device is opened; null where it needs none. */
  readonly group: number | null
}

/** What the owner allows, and what nobody may. */
export interface GrantRules {
  readonly devices: Readonly<Record<string, string>>
  readonly readOnly: ReadonlyArray<string>
  readonly privatePaths: ReadonlyArray<string>
}

/** Folders that are the system's own. Neither they, nor what is in them, nor what they are in can be granted. */
const systemFolders = [
  ...[
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/lost+found",
    "/proc",
    "/root"
  ],
  ...[
    "/run",
    "/sbin",
    "/sys",
    "/usr/bin",
    "/usr/lib",
    "/usr/sbin",
    "/var/cache",
    "/var/lib/dpkg",
    "/var/lock"
  ],
  ...["/var/log", "/var/run", "/var/spool", "/tmp/.X11-unix"]
]

/** What a look at a tree may cost. */
const treeEntries = 20_000
const treeDepth = 32

const refuse = (path: string, why: string): never => {
  throw new GrantRefused(`${path} is not granted: ${why}`)
}

const touches = (one: string, other: string): boolean =>
  one === other ||
  one.startsWith(other === "/" ? "/" : `${other}/`) ||
  other.startsWith(one === "/" ? "/" : `${one}/`)

/** Judges a path by its text alone. Throws {@link GrantRefused}. */
export const judgePath = (path: string, privatePaths: ReadonlyArray<string>): void => {
  if (!path.startsWith("/")) refuse(path, "it is not absolute")
  if (normalize(path) !== path || (path.length > 1 && path.endsWith("/"))) {
    refuse(path, "it is not plain: write it without `.`, `..`, and doubled or trailing slashes")
  }
  const system = systemFolders.find((folder) => touches(path, folder))
  if (system !== undefined) refuse(path, `it touches ${system}, which is the system's`)
  const own = privatePaths.find((folder) => touches(path, folder))
  if (own !== undefined) refuse(path, `it touches ${own}, where Postern keeps its own`)
}

/** Opens a path for looking at it alone, and runs `look` with the descriptor. */
const withPath = <A>(path: string, look: (descriptor: number) => A): A => {
  const O_PATH = 0o10000000
  let descriptor: number
  try {
    descriptor = openSync(path, O_PATH | constants.O_NOFOLLOW)
  } catch (error) {
    return refuse(path, error instanceof Error ? error.message : String(error))
  }
  try {
    return look(descriptor)
  } finally {
    closeSync(descriptor)
  }
}

/** Looks through a tree for what would lead out of it: sockets, pipes and devices. Links in it are not followed. */
const judgeTree = (root: string, path: string): void => {
  let left = treeEntries
  const visit = (folder: string, shown: string, depth: number): void => {
    if (depth > treeDepth) refuse(path, `it is deeper than ${treeDepth} folders`)
    const listing = opendirSync(folder)
    try {
      for (let entry = listing.readSync(); entry !== null; entry = listing.readSync()) {
        left -= 1
        if (left < 0) refuse(path, `it holds more than ${treeEntries} entries`)
        const name = `${shown}/${entry.name}`
        if (entry.isDirectory()) visit(join(folder, entry.name), name, depth + 1)
        else if (entry.isSocket()) refuse(path, `${name} is a socket`)
        else if (!entry.isFile() && !entry.isSymbolicLink()) refuse(path, `${name} is no plain file`)
      }
    } finally {
      listing.closeSync()
    }
  }
  visit(root, path, 0)
}

/** Judges a read-only path: by its text, then by what stands there. Throws {@link GrantRefused}. */
export const lendReadOnly = (path: string, privatePaths: ReadonlyArray<string>): LentPath => {
  judgePath(path, privatePaths)
  return withPath(path, (descriptor) => {
    const seen = `/proc/self/fd/${descriptor}`
    const real = readlinkSync(seen)
    if (real !== path) refuse(path, `it leads over a link, to ${real}`)
    const found = fstatSync(descriptor, { bigint: true })
    const kind = found.isDirectory() ? "folder" : found.isFile() ? "file" : null
    if (kind === null) return refuse(path, "it is neither a folder nor a plain file")
    if (kind === "folder") {
      try {
        judgeTree(`${seen}/.`, path)
      } catch (error) {
        if (error instanceof GrantRefused) throw error
        refuse(path, `it cannot be looked through: ${error instanceof Error ? error.message : String(error)}`)
      }
    }
    return { kind, path, device: found.dev, inode: found.ino, name: null, group: null }
  })
}

/** Devices that may be granted, by name: serial lines, cameras, USB devices. */
const serial = /^\/dev\/tty(ACM|AMA|AML|GS|HS|LP|MSM|mxc|O|PS|S|SAC|SC|THS|UL|USB|XRUSB)[0-9]{1,3}$/
const video = /^\/dev\/(video|media)[0-9]{1,3}$/
const usb = /^\/dev\/bus\/usb\/[0-9]{3}\/[0-9]{3}$/

/** Devices that lead to the whole machine, whatever name somebody gave them: memory, terminals, disks by raw access, misc. */
const forbiddenMajors: ReadonlySet<number> = new Set([1, 5, 7, 10, 13, 21, 29, 31, 136])

const majorOf = (device: bigint): number =>
  Number(((device >> 32n) & 0xfffff000n) | ((device >> 8n) & 0xfffn))

/** Judges a device of the owner's list. Links to it (as in /dev/serial/by-id) are followed. Throws {@link GrantRefused}. */
export const lendDevice = (name: string, configured: string, separateUid: boolean): LentPath => {
  const shown = `the device ${name} (${configured})`
  let path: string
  try {
    if (!configured.startsWith("/dev/")) refuse(shown, "it does not lie in /dev")
    path = realpathSync(configured)
  } catch (error) {
    if (error instanceof GrantRefused) throw error
    return refuse(shown, "it is not there: is it plugged in?")
  }
  if (![serial, video, usb].some((pattern) => pattern.test(path))) {
    refuse(shown, `${path} is no serial line, camera or USB device`)
  }
  return withPath(path, (descriptor) => {
    const found = fstatSync(descriptor, { bigint: true })
    if (!found.isCharacterDevice()) refuse(shown, `${path} is no character device`)
    if (forbiddenMajors.has(majorOf(found.rdev))) {
      refuse(shown, `${path} is a device of major ${majorOf(found.rdev)}, which leads to the machine itself`)
    }
    const open = (Number(found.mode) & 0o006) === 0o006
    const byGroup = (Number(found.mode) & 0o060) === 0o060 && found.gid !== 0n
    if (separateUid && !open && !byGroup) {
      refuse(shown, "its group may not read and write it, or is root's: give it a group by a udev rule")
    }
    const group = separateUid && !open ? Number(found.gid) : null
    return { kind: "device", path, device: found.dev, inode: found.ino, name, group }
  })
}

/**
 * Judges everything that a job is to be lent. What the owner did not list is refused, whoever asks.
 *
 * @throws GrantRefused
 */
export const lendGrants = (
  grants: Grants,
  rules: GrantRules & { readonly uidBase: number | null }
): ReadonlyArray<LentPath> => [
  ...grants.devices.map((name) => {
    const configured = Object.hasOwn(rules.devices, name) ? rules.devices[name] : undefined
    if (configured === undefined)
      return refuse(`the device ${name}`, "the configuration has none of that name")
    return lendDevice(name, configured, rules.uidBase !== null)
  }),
  ...grants.read_only.map((path) => {
    if (!rules.readOnly.includes(path)) refuse(path, "the configuration does not list it")
    return lendReadOnly(path, rules.privatePaths)
  })
]

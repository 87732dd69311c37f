/**
 * The state folder: whose it is, who can look into it, and how much room is left.
 *
 * @module
 */
import { lstatSync, readdirSync, type Stats, statfsSync } from "node:fs"
import { dirname, join } from "node:path"
import type { Finding } from "../../schemas/Finding.ts"
import { errorText } from "../files/AtomicFile.ts"
import { requirement } from "./Findings.ts"
import type { Patient } from "./Patient.ts"

const mode = (found: Stats): string => (found.mode & 0o7777).toString(8).padStart(4, "0")
const isOpen = (found: Stats): boolean => (found.mode & 0o077) !== 0
const quoted = (path: string): string =>
  /^[A-Za-z0-9_./-]+$/.test(path) ? path : `'${path.replaceAll("'", `'\\''`)}'`

const folder = (path: string, found: Stats | undefined): Finding => {
  const is = requirement("state.folder", "the state folder, private to the program's user")
  if (found === undefined)
    return is.degraded(`${path} is not there yet`, "start the program once: it makes it")
  if (!found.isDirectory())
    return is.failed(`${path} is not a folder`, `mv ${quoted(path)} ${quoted(path)}.old`)
  return isOpen(found)
    ? is.failed(`${path} is open to other users (mode ${mode(found)})`, `chmod 0700 ${quoted(path)}`)
    : is.ok(`${path}, of user ${found.uid}, mode ${mode(found)}`)
}

const keys = (path: string, owner: number): Finding => {
  const is = requirement("state.keys", "the private keys, readable by the program's user alone")
  const file = join(path, "keys", "node.json")
  const found = lstatSync(file, { throwIfNoEntry: false })
  if (found === undefined) return is.degraded("there are none yet", "start the program once: it makes them")
  if (!found.isFile()) return is.failed(`${file} is not a plain file`, "put the file itself there")
  const around = lstatSync(dirname(file))
  if (isOpen(around))
    return is.failed(`${dirname(file)} has mode ${mode(around)}`, `chmod 0700 ${quoted(dirname(file))}`)
  if (isOpen(found)) return is.failed(`${file} has mode ${mode(found)}`, `chmod 0600 ${quoted(file)}`)
  return found.uid === owner
    ? is.ok(`mode ${mode(found)}`)
    : is.failed(
        `${file} belongs to user ${found.uid}, the folder to user ${owner}`,
        `chown -R ${owner} ${quoted(path)}`
      )
}

const namedAtMost = 3

/** Everything directly in the folder belongs to its owner; the folder itself keeps others out. */
const contents = (path: string, owner: number): Finding => {
  const is = requirement("state.files", "files that all belong to the program's user")
  const others = readdirSync(path).filter(
    (name) => lstatSync(join(path, name), { throwIfNoEntry: false })?.uid !== owner
  )
  if (others.length === 0) return is.ok("all of them")
  const shown = others.slice(0, namedAtMost).join(", ")
  return is.failed(
    `${shown}${others.length > namedAtMost ? " and others" : ""} belong to another user: was the program started as root once?`,
    `chown -R ${owner} ${quoted(path)}`
  )
}

/** The nearest folder above a path that is there. */
const standing = (path: string): string =>
  lstatSync(path, { throwIfNoEntry: false }) !== undefined || dirname(path) === path
    ? path
    : standing(dirname(path))

const mebibytes = (bytes: number): string => `${Math.floor(bytes / 1024 / 1024)} MiB`

const room = (path: string, reserveBytes: number): Finding => {
  const is = requirement("state.disk", "room on the disk of the state folder")
  try {
    const { bavail, bsize } = statfsSync(standing(path))
    const free = bavail * bsize
    return free >= reserveBytes
      ? is.ok(`${mebibytes(free)} free`)
      : is.degraded(
          `${mebibytes(free)} free, less than the reserve of ${mebibytes(reserveBytes)}`,
          "free some: journalctl --vacuum-size=50M, apt-get clean"
        )
  } catch (error) {
    return is.failed(`it is not told: ${errorText(error)}`, "see dmesg and mount for what became of the disk")
  }
}

/** Looks at the folder without touching it. */
export const stateChecks = (
  { stateFolder }: Pick<Patient, "stateFolder">,
  reserveBytes: number
): ReadonlyArray<Finding> => {
  const disk = room(stateFolder, reserveBytes)
  try {
    const found = lstatSync(stateFolder, { throwIfNoEntry: false })
    const whole = folder(stateFolder, found)
    if (found === undefined || !found.isDirectory()) return [whole, disk]
    return [whole, keys(stateFolder, found.uid), contents(stateFolder, found.uid), disk]
  } catch (error) {
    const is = requirement("state.folder", "the state folder, private to the program's user")
    return [is.failed(errorText(error), "run postern doctor as root, or as the program's user"), disk]
  }
}

/**
 * Giving up root: the client does it for good, before it touches keys or network. Its state folder becomes its own on the
 * way, which also takes over the state of a client that used to run as root.
 */
import { accessSync, constants, lchownSync, lstatSync, readdirSync, readFileSync } from "node:fs"
import { dirname, join, resolve } from "node:path"
import { errorCode, makeFolders, replacePrivateFile } from "../files/AtomicFile.ts"

/** Root's rights cannot be given up, or the client could not work without them. The message says what to do. */
export class CannotDrop extends Error {
  override readonly name = "CannotDrop"
}

/** Whom the client becomes. */
export interface ClientUser {
  readonly uid: number
  readonly gid: number
  /** For people: the user's name, or its number. */
  readonly shown: string
}

/** The user of that name in /etc/passwd; the bare number where there is none. Throws {@link CannotDrop} for root. */
export const clientUser = (name: string, fallbackUid: number, passwd = "/etc/passwd"): ClientUser => {
  const found = readFileSync(passwd, "utf8")
    .split("\n")
    .map((line) => line.split(":"))
    .find((fields) => fields[0] === name && fields.length >= 4)
  const uid = found === undefined ? fallbackUid : Number(found[2])
  const gid = found === undefined ? fallbackUid : Number(found[3])
  const good = [uid, gid].every((id) => Number.isInteger(id) && id > 0 && id < 2 ** 32 - 1)
  if (good) return { uid, gid, shown: found === undefined ? `uid ${uid}` : name }
  throw new CannotDrop(`the user ${name} is root or has no plain uid and gid: name another (user)`)
}

/** What stands in a state folder of ours: without one of these, a folder of root's is somebody else's. */
const marks = ["lock.db"]

const giveTree = (folder: string, user: ClientUser): void => {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) giveTree(path, user)
    lchownSync(path, user.uid, user.gid)
  }
}

/** Makes the folder, with what is missing above it, which others may pass through. */
const makeStateFolder = (path: string): boolean => {
  const before = process.umask(0o022)
  try {
    makeFolders(dirname(path), 0o755)
    return makeFolders(path, 0o700)
  } finally {
    process.umask(before)
  }
}

/** Refuses a folder that another user could swap for a link while root gives it away. */
const requireSafeWay = (path: string): void => {
  for (let above = dirname(path); ; above = dirname(above)) {
    const { mode, uid } = lstatSync(above)
    if (uid !== 0 || ((mode & 0o022) !== 0 && (mode & 0o1000) === 0)) {
      throw new CannotDrop(
        `${path} is to become the client's, but ${above} can be changed by others: name a folder below root's own folders`
      )
    }
    if (above === dirname(above)) return
  }
}

/**
 * Makes the state folder, or makes it the client's. Only a folder that root alone can write is looked into, so nobody can
 * swap a part of it meanwhile; the folder itself comes last, so that what a crash leaves half done is done again.
 *
 * @returns whether the state used to be root's
 */
export const handOverState = (folder: string, user: ClientUser): boolean => {
  const path = resolve(folder)
  const fresh = makeStateFolder(path)
  const found = lstatSync(path)
  if (!found.isDirectory()) throw new CannotDrop(`${path} is not a folder: move it away`)
  if (found.uid === user.uid) return false
  if (found.uid !== 0 || (found.mode & 0o022) !== 0) {
    throw new CannotDrop(
      `${path} belongs to uid ${found.uid}, or others may write to it, but the client runs as ${user.shown}: run chown -R ${user.uid}:${user.gid} ${path} and chmod 0700 ${path} if it is the client's`
    )
  }
  requireSafeWay(path)
  const names = readdirSync(path)
  if (names.length > 0 && !names.some((name) => marks.includes(name))) {
    throw new CannotDrop(
      `${path} is root's and holds something else than a client's state: name another folder with --state`
    )
  }
  giveTree(path, user)
  lchownSync(path, user.uid, user.gid)
  return !fresh && names.length > 0
}

/** What the system says of a thread of ours; undefined where it has ended since the threads were listed. */
const statusOfThread = (path: string): string | undefined => {
  try {
    return readFileSync(path, "latin1")
  } catch (error) {
    if (errorCode(error) === "ENOENT" || errorCode(error) === "ESRCH") return undefined
    throw error
  }
}

/** Whether every thread of this process runs as the user, with no capability left. */
export const isOnly = (user: ClientUser, threads = "/proc/self/task"): boolean =>
  readdirSync(threads).every((task) => {
    const status = statusOfThread(join(threads, task, "status"))
    if (status === undefined) return true
    const ids = (key: string) =>
      new RegExp(`^${key}:\\s+(.*)$`, "m").exec(status)?.[1]?.trim().split(/\s+/) ?? []
    const none = (key: string) => new RegExp(`^${key}:\\s+0+$`, "m").test(status)
    return (
      ids("Uid").length === 4 &&
      ids("Uid").every((id) => Number(id) === user.uid) &&
      ids("Gid").every((id) => Number(id) === user.gid) &&
      none("CapPrm") &&
      none("CapEff")
    )
  })

/** Becomes the user, for good. Throws {@link CannotDrop}. */
export const dropTo = (user: ClientUser): void => {
  try {
    process.setgroups?.([user.gid])
    process.setgid?.(user.gid)
    process.setuid?.(user.uid)
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw new CannotDrop(
      `started as root, but not allowed to become ${user.shown} (${why}): give the program CAP_SETUID, CAP_SETGID, CAP_CHOWN (and for jobs CAP_SETPCAP, CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_KILL, CAP_DAC_READ_SEARCH), or start it as a user who is not root`
    )
  }
  if (!isOnly(user)) throw new CannotDrop(`root's rights could not be given up for ${user.shown}`)
  process.umask(0o077)
}

/** Whether the user that this process became can use its state folder; throws {@link CannotDrop} where it cannot. */
export const requireReach = (user: ClientUser, folder: string): void => {
  try {
    accessSync(folder, constants.R_OK | constants.W_OK | constants.X_OK)
  } catch {
    throw new CannotDrop(
      `the client runs as ${user.shown}, which cannot reach the state folder ${folder}: let it pass through every folder above (chmod o+x ${dirname(folder)} and those above), or name another place`
    )
  }
}

/**
 * The program's file as the client's user can read it: the file itself, or, where only root can pass to it (as in root's
 * home), a copy in the state folder, fresh from `source`. The client's own threads are started from it, and nothing else.
 */
export const programFor = (program: string, source: Uint8Array, folder: string): string => {
  try {
    accessSync(program, constants.R_OK)
    return program
  } catch {
    const copy = join(folder, "client.js")
    replacePrivateFile(copy, source)
    return copy
  }
}

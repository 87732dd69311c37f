/**
 * What a device's program needs of its machine, as a list that is looked through once at its start, so that everything
 * missing is said at once. `postern doctor` looks deeper and whenever it is asked.
 *
 * @module
 */
import { accessSync, constants, existsSync } from "node:fs"
import { delimiter, join } from "node:path"
import type { Finding } from "../schemas/Finding.ts"
import { requirement } from "./doctor/Findings.ts"
import { errorText, requirePrivateFolder } from "./files/AtomicFile.ts"
import { launchPath, launchTools } from "./jail/Launch.ts"

/** A program of the system that this one starts. */
interface Tool {
  readonly name: string
  readonly forWhat: string
  /** Of Debian. */
  readonly package: string
  /** Where it is looked for. */
  readonly path: string
}

const packages: Readonly<Record<(typeof launchTools)[number], string>> = {
  sh: "dash",
  unshare: "util-linux",
  setpriv: "util-linux",
  prlimit: "util-linux",
  mount: "mount",
  kill: "procps",
  chmod: "coreutils",
  chown: "coreutils",
  mkdir: "coreutils",
  mkfifo: "coreutils",
  sleep: "coreutils"
}

/** What of the settings decides what is needed. */
export interface NeedOptions {
  readonly stateFolder: string
  /** Whether the folder is looked into, and made where it is missing. */
  readonly looksIntoFolder: boolean
  readonly bwrap: string
  /** Whether the configuration or an invitation names a server. */
  readonly knowsServer: boolean
  readonly environment: Readonly<Record<string, string | undefined>>
}

const toolsOf = ({ bwrap, environment }: Pick<NeedOptions, "bwrap" | "environment">): ReadonlyArray<Tool> => [
  {
    name: bwrap,
    forWhat: "the jail that work runs in",
    package: "bubblewrap",
    path: `${launchPath}${delimiter}${environment["PATH"] ?? ""}`
  },
  ...launchTools.map((name) => ({
    name,
    forWhat: "which prepares the jail",
    package: packages[name],
    path: launchPath
  })),
  ...(environment["NOTIFY_SOCKET"] === undefined
    ? []
    : [
        {
          name: "systemd-notify",
          forWhat: "which tells systemd that the program lives",
          package: "systemd",
          path: environment["PATH"] ?? ""
        }
      ])
]

const isExecutable = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    // Not there, or not to be run.
    return false
  }
}

const toolFinding = ({ forWhat, name, package: debian, path }: Tool): Finding => {
  const short =
    name
      .split("/")
      .at(-1)
      ?.toLowerCase()
      .replace(/[^a-z0-9_-]/g, "-") || "program"
  const is = requirement(`program.${short}`.slice(0, 64), `${name}, ${forWhat}`)
  const places = name.includes("/") ? [name] : path.split(delimiter).map((folder) => join(folder, name))
  const found = places.find(isExecutable)
  return found === undefined ? is.degraded(`there is no ${name}`, `apt-get install ${debian}`) : is.ok(found)
}

/** The programs that the jail and systemd's watch are made of, found or not. */
export const toolFindings = (options: Pick<NeedOptions, "bwrap" | "environment">): ReadonlyArray<Finding> =>
  toolsOf(options).map(toolFinding)

const oldestNode = [22, 19] as const

/** Whether this Node is new enough. */
export const nodeFinding = (version: string): Finding => {
  const is = requirement("node.version", `Node ${oldestNode.join(".")} or newer`)
  const [major = 0, minor = 0] = version.split(".").map(Number)
  return major > oldestNode[0] || (major === oldestNode[0] && minor >= oldestNode[1])
    ? is.ok(version)
    : is.failed(`this is Node ${version}`, "install a newer one: https://nodejs.org/en/download")
}

const folderFinding = (folder: string): Finding => {
  const is = requirement("state.folder", "a state folder that is this user's own and can be written")
  try {
    requirePrivateFolder(folder)
    accessSync(folder, constants.R_OK | constants.W_OK | constants.X_OK)
    return is.ok(folder)
  } catch (error) {
    return is.failed(
      `the state folder ${folder} cannot be used: ${errorText(error)}`,
      "make it usable, or name another with --state"
    )
  }
}

/** Without a ledger there is no root that could name a server. */
const serverFinding = ({ knowsServer, stateFolder }: NeedOptions): Finding => {
  const is = requirement("server.known", "a server to ask")
  return knowsServer || existsSync(join(stateFolder, "ledger.db"))
    ? is.ok(knowsServer ? "named" : "kept in the state folder, if there is one")
    : is.failed(
        "no server is known",
        "name it with --server URL, or give an invitation (--invitation TEXT, or $POSTERN_INVITATION)"
      )
}

/** Looks through everything. The state folder is made where there is none. */
export const findNeeds = (options: NeedOptions): ReadonlyArray<Finding> => [
  nodeFinding(process.versions.node),
  ...(options.looksIntoFolder ? [folderFinding(options.stateFolder)] : []),
  serverFinding(options),
  ...toolFindings(options)
]

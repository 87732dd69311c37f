import { spawnSync } from "node:child_process"
import { accessSync, constants, existsSync, readFileSync } from "node:fs"
import { delimiter, join } from "node:path"
import { describe, it } from "vitest"

/**
 * What a test needs of the machine: a command of scripts/system-packages.json or of the system, `root`, `jail`
 * (bubblewrap can make a sandbox here, which needs user namespaces too), or `open-checkout` (other users can pass to it).
 */
export type Part =
  | "root"
  | "jail"
  | "open-checkout"
  | "bwrap"
  | "age"
  | "zstd"
  | "tar"
  | "ip"
  | "socat"
  | "python3"
  | (string & {})

interface SystemPackage {
  readonly command: string
  /** Of a library, which has no command: a file of it. */
  readonly file?: string
  readonly package: string
  readonly reason: string
}

const packages: ReadonlyArray<SystemPackage> = JSON.parse(
  readFileSync(join(import.meta.dirname, "../../scripts/system-packages.json"), "utf8")
)

const isExecutable = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

const hasCommand = (command: string): boolean =>
  [...(process.env["PATH"] ?? "").split(delimiter), "/usr/sbin", "/sbin"].some(
    (folder) => folder !== "" && isExecutable(join(folder, command))
  )

const whyNoCommand = (command: string): string | undefined => {
  const known = packages.find((entry) => entry.command === command)
  if (known?.file === undefined ? hasCommand(command) : existsSync(known.file)) return undefined
  return known === undefined
    ? `there is no ${command} here`
    : `there is no ${command} here (package ${known.package}: ${known.reason})`
}

const whyNoJail = (): string | undefined => {
  const missing = whyNoCommand("bwrap")
  if (missing !== undefined) return missing
  const trial = spawnSync("bwrap", ["--unshare-all", "--unshare-user", "--ro-bind", "/", "/", "true"], {
    encoding: "utf8",
    timeout: 10_000
  })
  return trial.status === 0 ? undefined : `bubblewrap cannot make a sandbox here: ${trial.stderr.trim()}`
}

/** Where the Node of that name lies when `npm test` has installed it: the oldest that we support, or one far older. */
export const runtimePath = (name: "oldest-node" | "ancient-node"): string =>
  join(import.meta.dirname, "../runtimes/node_modules", `${name}-${process.arch}`, "bin/node")

const whyNoRuntime = (name: "oldest-node" | "ancient-node"): string | undefined =>
  isExecutable(runtimePath(name))
    ? undefined
    : `${name} is not installed in test/runtimes (npm test does that)`

const nobody = 65_534

/** Started as root from a checkout in root's home, a test cannot run the sources as somebody else. */
const whyClosedCheckout = (): string | undefined => {
  if (process.getuid?.() !== 0) return undefined
  const trial = spawnSync(process.execPath, ["--version"], {
    cwd: "/",
    uid: nobody,
    gid: nobody,
    timeout: 10_000
  })
  return trial.status === 0
    ? undefined
    : `other users cannot pass to this checkout (chmod o+x ${join(import.meta.dirname, "../..")} and the folders above)`
}

const probes: Record<string, () => string | undefined> = {
  "open-checkout": whyClosedCheckout,
  root: () => (process.getuid?.() === 0 ? undefined : "it needs root"),
  jail: whyNoJail,
  "oldest-node": () => whyNoRuntime("oldest-node"),
  "ancient-node": () => whyNoRuntime("ancient-node")
}

const answers = new Map<Part, string | undefined>()

const whyMissing = (part: Part): string | undefined => {
  if (!answers.has(part)) answers.set(part, (probes[part] ?? (() => whyNoCommand(part)))())
  return answers.get(part)
}

/** In CI nothing may be skipped for want of a part. */
const inCi = (): boolean => !["", "0", "false", undefined].includes(process.env["CI"])

/** Why tests that need these parts cannot run here. */
export const obstacles = (parts: ReadonlyArray<Part>): ReadonlyArray<string> =>
  parts.map(whyMissing).filter((reason) => reason !== undefined)

/**
 * True when every part is there. Otherwise it says "skipped, because …" and is false; in CI it throws, which
 * fails the test file. Use it as `describe.skipIf(!requires("bwrap", "age"))(…)`.
 */
export const requires = (...parts: ReadonlyArray<Part>): boolean => {
  const reasons = obstacles(parts)
  if (reasons.length === 0) return true
  if (inCi()) throw new Error(`in CI nothing may be missing, but ${reasons.join("; ")}`)
  process.stderr.write(`skipped, because ${reasons.join("; ")}\n`)
  return false
}

/**
 * A `describe` whose tests need parts of the machine. Without them it holds one skipped test whose name says
 * why, and in CI one that fails.
 */
export const describeWith = (parts: ReadonlyArray<Part>, name: string, body: () => void): void => {
  const reasons = obstacles(parts)
  if (reasons.length === 0) {
    describe(name, body)
    return
  }
  const because = reasons.join("; ")
  describe(name, () => {
    it(`skipped, because ${because}`, (context) => {
      if (inCi()) throw new Error(`in CI nothing may be missing, but ${because}`)
      context.skip(because)
    })
  })
}

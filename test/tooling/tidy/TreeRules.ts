import { posix } from "node:path"
import type { Finding, Source } from "./Source.ts"

/** All text files of the checkout, by path. */
export type Tree = ReadonlyMap<string, string>

const finding = (path: string, line: number, rule: string, message: string): Finding => ({
  path,
  line,
  rule,
  message
})

const json = (tree: Tree, path: string) => JSON.parse(tree.get(path) ?? "{}")

/** Packages whose install scripts may run. There are none. */
const INSTALL_SCRIPTS: ReadonlyArray<string> = []

/**
 * Builds of development tools for machines that no test runs on, locked by version without a checksum. Nothing
 * that Linux on x64 needs is among them.
 */
const WITHOUT_CHECKSUM =
  /^node_modules\/(@biomejs\/cli-(android|darwin|win32)-|@biomejs\/cli-linux-\w+-musl|@effect\/tsgo-(darwin|win32|linux-arm))/

const exactVersions = (tree: Tree): ReadonlyArray<Finding> =>
  [...tree.keys()]
    .filter((path) => posix.basename(path) === "package.json")
    .flatMap((path) => {
      const manifest = json(tree, path)
      const lists = ["dependencies", "devDependencies", "optionalDependencies", "peerDependencies"]
      return lists
        .flatMap((list) => Object.entries<string>(manifest[list] ?? {}))
        .filter(([, version]) => !/^(npm:[^@]+@)?\d+\.\d+\.\d+$/.test(version))
        .map(([name, version]) => finding(path, 1, "exact-version", `${name} ${version} is not one version`))
    })

interface LockEntry {
  readonly integrity?: string
  readonly resolved?: string
  readonly optional?: boolean
  readonly hasInstallScript?: boolean
}

const lockEntryBreach = (name: string, entry: LockEntry): ReadonlyArray<readonly [string, string]> => {
  const breaches: Array<readonly [string, string]> = []
  if (entry.integrity === undefined && !(entry.optional === true && WITHOUT_CHECKSUM.test(name))) {
    breaches.push(["lock-integrity", `${name} has no integrity`])
  }
  if (entry.resolved !== undefined) breaches.push(["lock-host", `${name} names the registry it came from`])
  if (entry.hasInstallScript === true && !INSTALL_SCRIPTS.includes(name)) {
    breaches.push(["install-script", `${name} has an install script that is not on the list`])
  }
  return breaches
}

const lockFiles = (tree: Tree): ReadonlyArray<Finding> =>
  [...tree.keys()]
    .filter((path) => posix.basename(path) === "package-lock.json")
    .flatMap((path) =>
      Object.entries<LockEntry>(json(tree, path).packages ?? {})
        .filter(([name]) => name !== "")
        .flatMap(([name, entry]) => lockEntryBreach(name, entry))
        .map(([rule, message]) => finding(path, 1, rule, message))
    )

const noInstallScripts = (tree: Tree): ReadonlyArray<Finding> =>
  /^ignore-scripts=true$/m.test(tree.get(".npmrc") ?? "")
    ? []
    : [finding(".npmrc", 1, "install-script", "ignore-scripts=true is missing")]

/** Words are put together here, so that this file does not breach its own rule. */
const places: ReadonlyArray<readonly [RegExp, string]> = [
  [new RegExp(`/work/${"(main|shared)"}\\b`), "a path of one machine"],
  [new RegExp(`(^|[^\\w.])/root${"/\\.?\\w"}`), "a path of one machine"],
  [new RegExp(`/tmp/${"bash_jobs"}`), "a path of one machine"],
  [new RegExp(`registry\\.${"npmjs"}|\\b(artifactory|nexus)\\.`), "a registry host"]
]

const machinePlaces = (tree: Tree): ReadonlyArray<Finding> => {
  const found: Array<Finding> = []
  for (const [path, text] of tree) {
    // What a jailed job must not read is named by the tests of the jail.
    const wanted = path.startsWith("test/")
      ? places.filter(([pattern]) => !pattern.source.includes("/root"))
      : places
    for (const [index, line] of text.split("\n").entries()) {
      for (const [pattern, what] of wanted) {
        if (pattern.test(line))
          found.push(finding(path, index + 1, "machine-place", `${what}: ${line.trim().slice(0, 80)}`))
      }
    }
  }
  return found
}

const openEndsInProse = (tree: Tree): ReadonlyArray<Finding> =>
  [...tree]
    .filter(
      ([path]) =>
        /\.(md|json|ya?ml|toml|service|sh)$|^\.ci\//.test(path) && !/package-lock|vectors/.test(path)
    )
    .flatMap(([path, text]) =>
      text
        .split("\n")
        .flatMap((line, index) =>
          new RegExp(`\\b(${"TO"}DO|${"FIX"}ME)\\b`).test(line)
            ? [finding(path, index + 1, "open-end", line.trim().slice(0, 80))]
            : []
        )
    )

const mergeMarkers = (tree: Tree): ReadonlyArray<Finding> =>
  [...tree].flatMap(([path, text]) => {
    const at = text.split("\n").findIndex((line) => /^(<{7}|>{7}) /.test(line))
    return at === -1 ? [] : [finding(path, at + 1, "merge-marker", "an unfinished merge")]
  })

/** Every rule that looks at files as text or at the whole checkout. */
export const treeRules: ReadonlyArray<(tree: Tree) => ReadonlyArray<Finding>> = [
  exactVersions,
  lockFiles,
  noInstallScripts,
  machinePlaces,
  openEndsInProse,
  mergeMarkers
]

const resolveImport = (from: string, specifier: string): string => posix.join(posix.dirname(from), specifier)

const imported = (sources: Iterable<Source>, counts: (path: string) => boolean): ReadonlySet<string> => {
  const found = new Set<string>()
  for (const source of sources) {
    if (!counts(source.path)) continue
    for (const { specifier } of source.imports) {
      if (specifier.startsWith(".")) found.add(resolveImport(source.path, specifier))
    }
  }
  return found
}

/**
 * Files of src that nothing but tests imports, and test support that no test imports. While a program's entry is
 * still to be written, all are let through.
 */
export const orphans = (
  tree: Tree,
  sources: ReadonlyArray<Source>,
  entries: ReadonlyArray<string>
): ReadonlyArray<Finding> => {
  const complete = entries.every((entry) => tree.has(entry))
  const isTesting = (path: string): boolean => path.includes("/testing/")
  const byProduct = imported(
    sources,
    (path) => !complete || (/^(src|bench|web)\//.test(path) && !isTesting(path))
  )
  const byAnyone = imported(sources, () => true)
  return sources
    .map((source) => source.path)
    .filter((path) => {
      if (!complete || entries.includes(path) || path.endsWith(".d.ts")) return false
      if (path.startsWith("test/support/") || isTesting(path)) return !byAnyone.has(path)
      return path.startsWith("src/") && !byProduct.has(path)
    })
    .map((path) => finding(path, 1, "orphan", "nothing imports it"))
}

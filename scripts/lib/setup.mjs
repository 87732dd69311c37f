// Dependencies: installed once per lock file and machine, and checked against the lock file.

import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { runQuiet } from "./exec.mjs"
import { at, root } from "./paths.mjs"
import { StepFailed, say, step } from "./say.mjs"
import { hashOf } from "./sources.mjs"

const STAMP = at("node_modules", ".postern-setup")

const readJson = (path) => JSON.parse(readFileSync(path, "utf8"))

const libc = () => (process.report?.getReport().header.glibcVersionRuntime === undefined ? "musl" : "glibc")

const stampNow = () => hashOf(["package-lock.json", ".npmrc"], process.platform, process.arch, libc())

const allows = (list, value) => {
  if (list === undefined) return true
  const words = [list].flat()
  if (words.includes(`!${value}`)) return false
  return words.every((word) => word.startsWith("!")) || words.includes(value) || words.includes("any")
}

const fitsThisMachine = (entry) =>
  allows(entry.os, process.platform) &&
  allows(entry.cpu, process.arch) &&
  (process.platform !== "linux" || allows(entry.libc, libc()))

/** Where a package required at `from` lies in the lock file, looked up as Node does. */
const locate = (packages, from, name) => {
  for (let folder = from; ; folder = folder.slice(0, Math.max(0, folder.lastIndexOf("node_modules/") - 1))) {
    const path = folder === "" ? `node_modules/${name}` : `${folder}/node_modules/${name}`
    if (Object.hasOwn(packages, path)) return path
    if (folder === "") return undefined
  }
}

/** Paths of all packages that this machine needs: what is reachable without a package for another machine. */
const neededPaths = (packages) => {
  const needed = new Set([""])
  for (const from of needed) {
    const entry = packages[from]
    const lists = [
      entry.dependencies,
      entry.optionalDependencies,
      from === "" ? entry.devDependencies : undefined
    ]
    for (const name of lists.flatMap((list) => Object.keys(list ?? {}))) {
      const path = locate(packages, from, name)
      if (path !== undefined && fitsThisMachine(packages[path])) needed.add(path)
    }
  }
  needed.delete("")
  return needed
}

/** Some packages write their version with a leading v; npm does not mind. */
const installedVersion = (manifest) =>
  existsSync(manifest) ? String(readJson(manifest).version).replace(/^v/, "") : undefined

/**
 * Names of locked packages that are absent from node_modules or there in another version. npm leaves out an
 * optional package whose `engines` do not fit the running Node, without a word: hence this check. Locked
 * without a checksum are only packages for other machines, and those may be absent.
 */
export const missingFrom = (folder) => {
  const { packages } = readJson(join(folder, "package-lock.json"))
  const missing = []
  for (const path of neededPaths(packages)) {
    const { version, optional, integrity } = packages[path]
    if (optional && integrity === undefined) continue
    if (installedVersion(join(folder, path, "package.json")) !== version) {
      missing.push(`${path.replace(/^.*node_modules\//, "")}@${version}`)
    }
  }
  return missing
}

/** Our environment without what an outer `npm test` says of its own folder: npm would install there instead. */
const npmEnvironment = () => {
  const inherited = Object.entries(process.env).filter(
    ([name]) => !/^npm_(config_local_prefix|package_|lifecycle_|command$)/.test(name)
  )
  return { ...Object.fromEntries(inherited), npm_config_engine_strict: "false" }
}

/** Runs npm itself: the one that started us, else the one on PATH. */
const npm = (args, folder) => {
  const cli = process.env.npm_execpath
  const options = { cwd: folder, env: npmEnvironment() }
  return cli !== undefined && /\bnpm-cli\.[cm]?js$/.test(cli)
    ? runQuiet(process.execPath, [cli, ...args], options)
    : runQuiet("npm", args, options)
}

/** `npm ci` in a folder with a lock file, then the check that it installed exactly what the lock file says. */
export const installExactly = async (folder) => {
  const quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--include=dev", "--include=optional"]
  const { code, output } = await npm(["ci", ...quiet, "--loglevel=error"], folder)
  if (code !== 0) {
    throw new StepFailed(
      `npm ci failed with code ${code} in ${folder}:\n${output.trimEnd()}\n` +
        "Is the npm registry reachable? `npm ping` tells."
    )
  }
  const missing = missingFrom(folder)
  if (missing.length > 0) {
    throw new StepFailed(`npm ci did not install what the lock file names: ${missing.join(", ")}`)
  }
}

const patchTypeScript = async () => {
  const cli = at("node_modules", "@effect", "tsgo", "dist", "effect-tsgo.cjs")
  const { code, output } = await runQuiet(process.execPath, [cli, "patch", "--typescript"], { cwd: root })
  if (code !== 0) throw new StepFailed(`effect-tsgo patch failed with code ${code}:\n${output.trimEnd()}`)
}

const hasTsgo = () => existsSync(at("node_modules", "@effect", `tsgo-${process.platform}-${process.arch}`))

/** Brings node_modules to the lock file's state, unless the stamp says that it is there already. */
export const ensureDependencies = async () => {
  const wanted = stampNow()
  if (existsSync(STAMP) && readFileSync(STAMP, "utf8").trim() === wanted) return
  rmSync(STAMP, { force: true })
  if (!existsSync(at("node_modules")) || missingFrom(root).length > 0) {
    await step("installing the dependencies (npm ci, no install scripts)", () => installExactly(root))
  }
  if (hasTsgo()) await step("teaching tsc Effect's own diagnostics (effect-tsgo patch)", patchTypeScript)
  else say("tsc works without Effect's own diagnostics: @effect/tsgo has no build for this machine")
  writeFileSync(STAMP, `${wanted}\n`)
}

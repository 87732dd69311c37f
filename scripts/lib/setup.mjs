// Dependencies: installed once per lock file and machine, and checked against the lock file.

import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { runQuiet } from "./exec.mjs"
import { at, root } from "./paths.mjs"
import { StepFailed, step } from "./say.mjs"
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

/**
 * Names of locked packages that are absent from node_modules or there in another version. npm leaves out an
 * optional package whose `engines` do not fit the running Node, without a word: hence this check.
 */
export const missingFrom = (folder) => {
  const { packages } = readJson(join(folder, "package-lock.json"))
  const missing = []
  for (const [path, entry] of Object.entries(packages)) {
    if (path === "" || entry.link || !fitsThisMachine(entry)) continue
    if (entry.optional && !isWantedOptional(packages, path)) continue
    const manifest = join(folder, path, "package.json")
    if (!existsSync(manifest) || readJson(manifest).version !== entry.version) {
      missing.push(`${path.replace(/^.*node_modules\//, "")}@${entry.version}`)
    }
  }
  return missing
}

/** An optional package of a package that does not fit this machine is absent for good reason. */
const isWantedOptional = (packages, path) => {
  const name = path.replace(/^.*node_modules\//, "")
  return Object.values(packages).some(
    (entry) =>
      fitsThisMachine(entry) &&
      [entry.dependencies, entry.optionalDependencies, entry.devDependencies].some(
        (wanted) => wanted !== undefined && Object.hasOwn(wanted, name)
      )
  )
}

/** Runs npm itself: the one that started us, else the one on PATH. */
const npm = (args, folder) => {
  const cli = process.env.npm_execpath
  const options = { cwd: folder, env: { ...process.env, npm_config_engine_strict: "false" } }
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

/** Brings node_modules to the lock file's state, unless the stamp says that it is there already. */
export const ensureDependencies = async () => {
  const wanted = stampNow()
  if (existsSync(STAMP) && readFileSync(STAMP, "utf8").trim() === wanted) return
  rmSync(STAMP, { force: true })
  if (!existsSync(at("node_modules")) || missingFrom(root).length > 0) {
    await step("installing the dependencies (npm ci, no install scripts)", () => installExactly(root))
  }
  await step("teaching tsc Effect's own diagnostics (effect-tsgo patch)", patchTypeScript)
  writeFileSync(STAMP, `${wanted}\n`)
}

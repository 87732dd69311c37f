// The tasks as data: what each needs first, and what it runs.

import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { runAttached, runQuiet } from "./exec.mjs"
import { at, root } from "./paths.mjs"
import { StepFailed, say, step } from "./say.mjs"
import { installExactly, missingFrom } from "./setup.mjs"

const tool = (...path) => at("node_modules", ...path)
const TSC = tool("typescript", "bin", "tsc")
const BIOME = tool("@biomejs", "biome", "bin", "biome")
const VITEST = tool("vitest", "vitest.mjs")

const node = (context, args, env = {}) =>
  runAttached(context.node.path, args, { cwd: root, env: { ...context.env, ...env } })

/** A check whose output matters only when it fails: printed then, and remembered as failed. */
const check = async (context, what, args) => {
  let result = { code: 0, output: "" }
  await step(what, async () => {
    result = await runQuiet(context.node.path, args, { cwd: root, env: context.env })
    return result.code === 0 ? undefined : "failed"
  })
  if (result.code !== 0) process.stderr.write(`${result.output.trimEnd()}\n`)
  return result.code
}

const typeCheck = (context) => check(context, "type check", [TSC, "-p", "."])
const lint = (context) =>
  check(context, "format, lint, import boundaries and cycles", [BIOME, "check", "--error-on-warnings", "."])

const summaryOf = (path) => {
  try {
    return JSON.parse(readFileSync(path, "utf8"))
  } catch {
    return undefined
  }
}

/** Runs vitest. `line` is the summary line; `failedFiles` are those to which all that failed belongs. */
const vitest = async (context, args, env = {}) => {
  const folder = mkdtempSync(join(tmpdir(), "postern-summary-"))
  const report = join(folder, "summary.json")
  try {
    const code = await node(context, [VITEST, "run", ...args], { ...env, POSTERN_SUMMARY_FILE: report })
    const summary = summaryOf(report)
    if (summary === undefined)
      return { code: code || 1, line: "the tests ended without a summary", failedFiles: [] }
    const { failed, failedFiles, passed, skipped, unhandled } = summary
    const line = `${passed} passed, ${failed} failed, ${skipped} skipped`
    return { code, line, failedFiles: unhandled === 0 ? failedFiles : [] }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Other Nodes to try the built programs under. Without them those tests say so, and fail in CI. */
const ensureRuntimes = async () => {
  const folder = at("test", "runtimes")
  if (missingFrom(folder).length === 0) return
  try {
    await step("installing the Nodes that dist/ is tried under (test/runtimes)", () => installExactly(folder))
  } catch (error) {
    if (!(error instanceof StepFailed)) throw error
    say(error.message)
  }
}

const test = async (context, args) => {
  await ensureRuntimes()
  const failedChecks = []
  if (args.length === 0) {
    if ((await typeCheck(context)) !== 0) failedChecks.push("type check")
    if ((await lint(context)) !== 0) failedChecks.push("lint")
  } else {
    say("arguments given: only the tests that they name run, without type check and lint")
  }
  const { code, line } = await vitest(context, args)
  if (failedChecks.length > 0) process.stdout.write(`failed before the tests: ${failedChecks.join(", ")}\n`)
  process.stdout.write(`${line}\n`)
  return failedChecks.length > 0 ? 1 : code
}

/** More failing files than this are no accident. */
const mostAgain = 2

/**
 * Proofs kill processes at random moments and go through networks of their own, on machines that may stand still for
 * seconds. `--again` runs the files that failed once more, with nothing beside them: what passes then is told of, to be looked
 * into; what fails again has failed.
 */
const proof = async (context, args) => {
  const size = process.env.POSTERN_PROOF === "short" ? "short" : "long"
  const env = { POSTERN_PROOF: size }
  say(`proofs at ${size} size`)
  const names = args.filter((arg) => arg !== "--again")
  const { code, failedFiles, line } = await vitest(context, ["--passWithNoTests", ...names], env)
  process.stdout.write(`${line}\n`)
  const isWorthIt = failedFiles.length > 0 && failedFiles.length <= mostAgain
  if (code === 0 || names.length === args.length || !isWorthIt) return code

  say(`run again, alone: ${failedFiles.join(" ")}`)
  const again = await vitest(context, [...failedFiles], env)
  const verdict = again.code === 0 ? "passed the second time only, look into it" : "failed twice"
  process.stdout.write(`${verdict}: ${failedFiles.join(" ")} (${again.line})\n`)
  return again.code
}

const build = async (context) => {
  const { buildIsFresh } = await import("./build-stamp.mjs")
  if (buildIsFresh()) {
    say("dist/ is up to date")
    return 0
  }
  return ensureBuilt(context)
}

/** Builds dist/ when the sources changed since the last build. */
export const ensureBuilt = async (context) => {
  const { buildIsFresh } = await import("./build-stamp.mjs")
  if (buildIsFresh()) return 0
  let report = ""
  await step("building dist/", async () => {
    const { code, output } = await runQuiet(context.node.path, [at("scripts", "build.ts")], {
      cwd: root,
      env: context.env
    })
    if (code !== 0) throw new StepFailed(`the build failed:\n${output.trimEnd()}`)
    report = output.trimEnd()
  })
  for (const line of report.split("\n").filter((text) => text !== "")) say(`  ${line}`)
  return 0
}

const demo = (context, args) =>
  runAttached(context.node.path, [at("dist", "demo.js"), ...args], {
    cwd: context.calledFrom,
    env: context.env
  })
const bench = (context, args) => node(context, [at("bench", "run.ts"), ...args])
const format = (context, args) =>
  node(context, [BIOME, "check", "--write", ...(args.length > 0 ? args : ["."])])

/** `parts`: looks for system parts first. `built`: needs dist/. */
export const tasks = {
  demo: {
    run: demo,
    built: true,
    parts: true,
    about: "server, device and operator on loopback do the main job"
  },
  test: {
    run: test,
    built: true,
    parts: true,
    about: "type check, lint, and all tests; with arguments only those tests"
  },
  proof: {
    run: proof,
    built: true,
    parts: true,
    about: "the long proofs: more property runs, longer simulations (--again: what fails once more)"
  },
  check: { run: typeCheck, about: "type check" },
  lint: { run: lint, about: "format, lint, import boundaries and cycles, changing nothing" },
  format: { run: format, about: "format and sort imports in place" },
  build: { run: build, about: "bundle the programs into dist/" },
  bench: {
    run: bench,
    built: true,
    parts: true,
    about: "benchmarks with their peers (--short, --json, --only NAME)"
  }
}

/**
 * Runs every bench of this folder, each in a process of its own, and prints its figures beside those of its peers,
 * which it measures in the same run.
 *
 *     npm run bench -- [--short] [--json] [--only NAME]…
 *
 * A bench is a module that exports `run`, see `Bench`. `--only` takes the ones whose path contains NAME. A bench that
 * breaks twice fails the run, and so does one that cannot run here when CI is set; a missed aim does not.
 */
import { fork } from "node:child_process"
import { readdirSync, readFileSync } from "node:fs"
import { availableParallelism, cpus } from "node:os"
import { join, relative, sep } from "node:path"
import { pathToFileURL } from "node:url"
import { parseArgs } from "node:util"
import type { Bench, Result, Skipped } from "./measure.ts"
import { aimsSummary, table } from "./report.ts"

type Outcome = { readonly results: ReadonlyArray<Result> } | Skipped | { readonly failure: string }

/** Several times what each takes on a slow machine: whoever exceeds it hangs. */
const LONGEST_MS = { short: 10 * 60_000, long: 30 * 60_000 }

const exportsRun = /^export (const run\b|(async )?function run\b)/m

const findBenches = (only: ReadonlyArray<string>): ReadonlyArray<string> =>
  readdirSync(import.meta.dirname, { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".ts") && path !== "run.ts")
    .map((path) => join(import.meta.dirname, path))
    .filter((path) => exportsRun.test(readFileSync(path, "utf8")))
    .filter((path) => only.length === 0 || only.some((name) => nameOf(path).includes(name)))
    .sort()

const nameOf = (path: string): string =>
  relative(import.meta.dirname, path)
    .replace(/\.ts$/, "")
    .split(sep)
    .join("/")

const inCi = !["", "0", "false", undefined].includes(process.env["CI"])

/** In the child: runs one bench and sends what it gave to the parent. */
const runHere = async (path: string, short: boolean): Promise<void> => {
  const module: { run: Bench } = await import(pathToFileURL(path).href)
  const given = await module.run({ short })
  const outcome: Outcome = "skipped" in given ? given : { results: given }
  process.send?.(outcome, () => process.exit(0))
}

/** A child that is told to end has this long to end what it started. */
const killAfterMs = 15_000

const runInChild = (path: string, short: boolean): Promise<Outcome> =>
  new Promise((resolve) => {
    const args = ["--module", path, ...(short ? ["--short"] : [])]
    // What a bench prints itself goes to stderr, so that stdout is the table alone.
    const child = fork(import.meta.filename, args, { stdio: ["ignore", 2, 2, "ipc"] })
    const longestMs = short ? LONGEST_MS.short : LONGEST_MS.long
    const timer = setTimeout(() => {
      resolve({ failure: `it took longer than ${longestMs / 60_000} minutes` })
      child.kill("SIGTERM")
      setTimeout(() => child.kill("SIGKILL"), killAfterMs).unref()
    }, longestMs)
    child.once("message", (message) => resolve(message as Outcome))
    child.once("error", (error) => resolve({ failure: error.message }))
    child.once("close", (code, signal) => {
      clearTimeout(timer)
      resolve({ failure: `it ended with ${signal ?? `code ${code}`} before it gave results` })
    })
  })

/** Many go through real networks: one that breaks is run once more, and that is said. */
const runTwiceAtMost = async (path: string, short: boolean): Promise<Outcome> => {
  const outcome = await runInChild(path, short)
  if (!("failure" in outcome)) return outcome
  process.stderr.write(`${nameOf(path)} failed: ${outcome.failure}; it is run once more\n`)
  return runInChild(path, short)
}

const machine = () => ({
  node: process.versions.node,
  cpu: cpus()[0]?.model ?? process.arch,
  cores: availableParallelism()
})

const legend =
  "Medians. A ratio is our figure divided by the peer's, both from this run: of rates the higher is better, of times and sizes the lower."

const outcomeText = (outcome: Outcome): string =>
  "failure" in outcome
    ? `failed: ${outcome.failure}`
    : "skipped" in outcome
      ? `${inCi ? "failed, since it" : "skipped: it"} cannot run here: ${outcome.skipped}`
      : table(outcome.results)

const isFailure = (outcome: Outcome): boolean => "failure" in outcome || ("skipped" in outcome && inCi)

const runAll = async (options: {
  short: boolean
  json: boolean
  only: ReadonlyArray<string>
}): Promise<number> => {
  const benches = findBenches(options.only)
  if (benches.length === 0) {
    process.stderr.write(
      `no bench ${options.only.length > 0 ? `named ${options.only.join(" or ")}` : "here"}\n`
    )
    return options.only.length > 0 ? 2 : 0
  }
  const { cores, cpu, node } = machine()
  const say = options.json ? () => undefined : (text: string) => console.log(text)
  say(`Node ${node}, ${cores} cores of ${cpu}${options.short ? ", short runs" : ""}\n${legend}`)
  const outcomes: Record<string, Outcome> = {}
  for (const path of benches) {
    const outcome = await runTwiceAtMost(path, options.short)
    outcomes[nameOf(path)] = outcome
    say(`\n${nameOf(path)}\n${outcomeText(outcome)}`)
  }
  const all = Object.values(outcomes)
  say(`\n${aimsSummary(all.flatMap((outcome) => ("results" in outcome ? outcome.results : [])))}`)
  if (options.json)
    console.log(JSON.stringify({ ...machine(), short: options.short, benches: outcomes }, null, 2))
  return all.some(isFailure) ? 1 : 0
}

const main = async (): Promise<void> => {
  const { values } = parseArgs({
    options: {
      short: { type: "boolean", default: false },
      json: { type: "boolean", default: false },
      only: { type: "string", multiple: true, default: [] },
      module: { type: "string" }
    }
  })
  if (values.module !== undefined) await runHere(values.module, values.short)
  else process.exitCode = await runAll(values)
}

await main()

/**
 * Runs every bench of this folder, each in a process of its own, and prints its figures beside those of its peers,
 * which it measures in the same run.
 *
 *     npm run bench -- [--short] [--json] [--only NAME]…
 *
 * A bench is a module that exports `run`, see `Bench`. `--only` takes the ones whose path contains NAME.
 */
import { fork } from "node:child_process"
import { readdirSync, readFileSync } from "node:fs"
import { availableParallelism, cpus } from "node:os"
import { join, relative, sep } from "node:path"
import { pathToFileURL } from "node:url"
import { parseArgs } from "node:util"

/** A figure of ours, and the same of its peers. `ratio` is ours divided by theirs, in the same unit. */
export interface Result {
  readonly name: string
  readonly value: number
  readonly unit: string
  readonly peers: ReadonlyArray<{ readonly name: string; readonly value: number; readonly ratio: number }>
  /** What we want, in words: "at least 3 x nact". */
  readonly aim?: string
}

/** What a bench module exports as `run`. `short` asks for a run of a few seconds. */
export type Bench = (options: { readonly short: boolean }) => Promise<ReadonlyArray<Result>>

type Outcome = { readonly results: ReadonlyArray<Result> } | { readonly failure: string }

const LONGEST_MS = { short: 3 * 60_000, long: 20 * 60_000 }

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

/** In the child: runs one bench and sends its results to the parent. */
const runHere = async (path: string, short: boolean): Promise<void> => {
  const module: { run: Bench } = await import(pathToFileURL(path).href)
  const results = await module.run({ short })
  process.send?.(results, () => process.exit(0))
}

const runInChild = (path: string, short: boolean): Promise<Outcome> =>
  new Promise((resolve) => {
    const args = ["--module", path, ...(short ? ["--short"] : [])]
    // What a bench prints itself goes to stderr, so that stdout is the table alone.
    const child = fork(import.meta.filename, args, { stdio: ["ignore", 2, 2, "ipc"] })
    const longestMs = short ? LONGEST_MS.short : LONGEST_MS.long
    const timer = setTimeout(() => {
      resolve({ failure: `it took longer than ${longestMs / 60_000} minutes` })
      child.kill("SIGKILL")
    }, longestMs)
    child.once("message", (message) => resolve({ results: message as ReadonlyArray<Result> }))
    child.once("error", (error) => resolve({ failure: error.message }))
    child.once("close", (code, signal) => {
      clearTimeout(timer)
      resolve({ failure: `it ended with ${signal ?? `code ${code}`} before it gave results` })
    })
  })

/** Three digits for small figures, whole numbers for large ones. */
const figure = (value: number): string =>
  Math.abs(value) < 1000
    ? value.toLocaleString("en", { maximumSignificantDigits: 3 })
    : Math.round(value).toLocaleString("en")

type Row = readonly [name: string, value: string, unit: string, ratio: string, aim: string]

const rowsOf = (result: Result): ReadonlyArray<Row> => [
  [result.name, figure(result.value), result.unit, "", result.aim === undefined ? "" : `aim: ${result.aim}`],
  ...result.peers.map(
    (peer): Row => [`  ${peer.name}`, figure(peer.value), result.unit, `ratio ${peer.ratio.toFixed(2)}`, ""]
  )
]

const table = (rows: ReadonlyArray<Row>): string => {
  const width = (column: number) => Math.max(...rows.map((row) => row[column]?.length ?? 0))
  const widths = [0, 1, 2, 3, 4].map(width)
  return rows
    .map(([name, value, unit, ratio, aim]) =>
      [
        name.padEnd(widths[0] ?? 0),
        value.padStart(widths[1] ?? 0),
        unit.padEnd(widths[2] ?? 0),
        ratio.padEnd(widths[3] ?? 0),
        aim
      ]
        .join("  ")
        .trimEnd()
    )
    .join("\n")
}

const machine = () => ({
  node: process.versions.node,
  cpu: cpus()[0]?.model ?? process.arch,
  cores: availableParallelism()
})

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
  if (!options.json)
    console.log(`Node ${node}, ${cores} cores of ${cpu}${options.short ? ", short runs" : ""}`)
  const outcomes: Record<string, Outcome> = {}
  for (const path of benches) {
    const outcome = await runInChild(path, options.short)
    outcomes[nameOf(path)] = outcome
    if (options.json) continue
    console.log(`\n${nameOf(path)}`)
    console.log("failure" in outcome ? `failed: ${outcome.failure}` : table(outcome.results.flatMap(rowsOf)))
  }
  if (options.json)
    console.log(JSON.stringify({ ...machine(), short: options.short, benches: outcomes }, null, 2))
  return Object.values(outcomes).some((outcome) => "failure" in outcome) ? 1 : 0
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

/**
 * What the jail costs: the time from asking for `true` to its result, against the same program started bare and in
 * bubblewrap alone. The jail's figure holds file system, filter, limits, output, artifacts and clean-up.
 */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect } from "effect"
import { BubblewrapJail } from "../src/adapters/BubblewrapJail.ts"
import { Jail } from "../src/ports/Jail.ts"
import { defaultJobLimits } from "../src/schemas/Manifest.ts"
import { type Bench, median, print, type Result, timed } from "./kernel/measure.ts"

const ended = async (file: string, args: ReadonlyArray<string>): Promise<void> => {
  const [code] = await once(spawn(file, args, { stdio: "ignore" }), "exit")
  if (code !== 0) throw new Error(`${file} ended with ${code}`)
}

/** As a sandbox of one's own might be called by hand: namespaces and a bare root, nothing else. */
const plainSandbox = [
  "--unshare-all",
  "--ro-bind",
  "/usr",
  "/usr",
  "--symlink",
  "usr/lib",
  "/lib",
  "--symlink",
  "usr/lib64",
  "/lib64",
  "/usr/bin/true"
]

const jailed = (packageFolder: string) =>
  Effect.scoped(
    Effect.gen(function* () {
      const run = yield* (yield* Jail).run({
        command: ["true"],
        environment: {},
        packageFolder,
        limits: defaultJobLimits,
        grants: { devices: [], read_only: [] },
        onOutput: () => Effect.void
      })
      const { outcome } = yield* run.result
      if (outcome._tag !== "Exited" || outcome.code !== 0) throw new Error(`true ended as ${outcome._tag}`)
    })
  )

const measure = async (packageFolder: string, rounds: number): Promise<ReadonlyArray<Result>> => {
  const [ours, bare, sandbox] = await Effect.runPromise(
    Effect.gen(function* () {
      const times: [Array<number>, Array<number>, Array<number>] = [[], [], []]
      const context = yield* Effect.context<Jail>()
      const contenders = [
        () => Effect.runPromiseWith(context)(jailed(packageFolder)),
        () => ended("/usr/bin/true", []),
        () => ended("bwrap", plainSandbox)
      ]
      for (let round = -5; round < rounds; round += 1) {
        for (const [index, contender] of contenders.entries()) {
          const ms = yield* Effect.promise(() => timed(contender))
          if (round >= 0) times[index]?.push(ms)
        }
      }
      return times
    }).pipe(Effect.provide(BubblewrapJail.layer()))
  )
  const value = median(ours)
  const peer = (name: string, values: ReadonlyArray<number>) => ({
    name,
    value: median(values),
    ratio: value / median(values)
  })
  return [
    {
      name: "true in the jail",
      value,
      unit: "ms",
      peers: [peer("spawned bare", bare), peer("bubblewrap alone", sandbox)]
    }
  ]
}

/** Median of as many rounds as asked for, the contenders in turns. */
export const run: Bench = async ({ short }) => {
  const packageFolder = mkdtempSync(join(tmpdir(), "postern-bench-"))
  try {
    return [...(await measure(packageFolder, short ? 30 : 200))]
  } finally {
    rmSync(packageFolder, { recursive: true, force: true })
  }
}

if (import.meta.main) print(await run({ short: process.argv.includes("--short") }))

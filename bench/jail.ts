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
import { type Bench, compare, takeTurns } from "./measure.ts"

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

/** The contenders of every bench that runs `true`, within the jail's setting. */
export const trueContenders = (packageFolder: string) =>
  Effect.map(Effect.context<Jail>(), (context) => ({
    "in the jail": () => Effect.runPromiseWith(context)(jailed(packageFolder)),
    "spawned bare": () => ended("/usr/bin/true", []),
    "bubblewrap alone": () => ended("bwrap", plainSandbox)
  }))

/** Why no jail can be made here; null where one can. */
export const jailProblem: Effect.Effect<string | null, never, Jail> = Effect.flatMap(Jail, (jail) =>
  jail.check.pipe(
    Effect.as(null),
    Effect.catch((error) => Effect.succeed(error.message))
  )
)

/** Median of as many rounds as asked for, the contenders in turns. */
export const run: Bench = ({ short }) =>
  Effect.gen(function* () {
    const problem = yield* jailProblem
    if (problem !== null) return { skipped: problem }
    const packageFolder = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "postern-bench-"))),
      (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
    )
    const contenders = yield* trueContenders(packageFolder)
    const times = yield* Effect.promise(() => takeTurns(contenders, { warmUp: 5, rounds: short ? 30 : 200 }))
    return [compare({ name: "true in the jail", unit: "ms", better: "lower" }, times, "in the jail")]
  }).pipe(Effect.scoped, Effect.provide(BubblewrapJail.layer()), Effect.runPromise)

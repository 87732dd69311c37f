/**
 * The main job at its smallest: from giving a package that runs `true` to holding its verified receipt. Server and
 * device are the built programs on loopback, and the device holds its polls open. The operator is in this process and
 * does what `postern run` does, without the start of a program. One submission after the other.
 *
 * The peers say what the parts cost by themselves: `true` in the jail without the way there, `true` spawned bare, and as
 * many plain HTTP round trips as the way takes.
 */
import { mkdtempSync } from "node:fs"
import { join } from "node:path"
import { Effect } from "effect"
import { BubblewrapJail } from "../src/adapters/BubblewrapJail.ts"
import type { Jail } from "../src/ports/Jail.ts"
import { withFleet } from "./fleet.ts"
import { jailProblem, trueContenders } from "./jail.ts"
import { type Bench, compare, median, type Result, takeTurns } from "./measure.ts"
import { openOperator, type Submission } from "./operator.ts"
import { openRoundTrips } from "./roundTrips.ts"

/**
 * Exchanges that wait for each other: payload up, the device's sequence, order; the held poll's answer and the payload
 * down count as two, the receipt one; the held question's answer, the job and the chain of receipts. Those that run
 * beside them (progress, the next poll) are not counted.
 */
const roundTrips = 9

const steps: ReadonlyArray<readonly [name: string, ms: (done: Submission) => number]> = [
  ["build and encrypt", ({ begun, built }) => built - begun],
  ["upload", ({ built, uploaded }) => uploaded - built],
  ["sign, submit, reach the device", ({ receipt, uploaded }) => receipt.received_at_ms - uploaded],
  ["download, verify, unpack", ({ receipt }) => (receipt.started_at_ms ?? 0) - receipt.received_at_ms],
  ["run in the jail", ({ receipt }) => receipt.ended_at_ms - (receipt.started_at_ms ?? 0)],
  ["receipt back and verified", ({ receipt, verified }) => verified - receipt.ended_at_ms]
]

/** From the server's acceptance on: what is left when the package is there already. */
const fromAcceptance = ({ accepted, verified }: Submission): number => verified - accepted

const resultsOf = (
  times: Readonly<Record<string, number>>,
  submissions: ReadonlyArray<Submission>
): ReadonlyArray<Result> => {
  const { ours, ...peers } = times as { readonly ours: number } & Record<string, number>
  const parts = steps.map(([name, ms]) => ({ name, value: median(submissions.map(ms)) }))
  const about = { unit: "ms", better: "lower" } as const
  return [
    compare({ ...about, name: "submit to verified receipt", parts }, { ours, ...peers }, "ours"),
    compare(
      { ...about, name: "accepted to verified receipt" },
      { ours: median(submissions.map(fromAcceptance)), ...peers },
      "ours"
    )
  ]
}

const measure = (short: boolean) =>
  Effect.gen(function* () {
    const context = yield* Effect.context<Jail>()
    return yield* Effect.promise(() =>
      withFleet(async (lent) => {
        const operator = await openOperator(lent)
        const packageFolder = mkdtempSync(join(lent.fleet.folder, "package-"))
        const alone = await Effect.runPromiseWith(context)(trueContenders(packageFolder))
        const http = await openRoundTrips()
        try {
          const submissions: Array<Submission> = []
          const rounds = { warmUp: 10, rounds: short ? 40 : 200 }
          const times = await takeTurns(
            {
              ours: async () => submissions.push(await operator.submit()),
              "true in the jail alone": alone["in the jail"],
              "true spawned bare": alone["spawned bare"],
              [`${roundTrips} plain HTTP round trips`]: () => http.run(roundTrips)
            },
            rounds
          )
          return resultsOf(times, submissions.slice(rounds.warmUp))
        } finally {
          http.close()
        }
      })
    )
  })

export const run: Bench = ({ short }) =>
  Effect.gen(function* () {
    const problem = yield* jailProblem
    return problem === null ? yield* measure(short) : { skipped: problem }
  }).pipe(Effect.provide(BubblewrapJail.layer()), Effect.runPromise)

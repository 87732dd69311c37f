/** A client that starts jobs one after the other, each with the marker in its command line, until it is killed. */
import { Effect } from "effect"
import { shell, startJob, withJail } from "./harness.ts"

const marker = process.argv[2] ?? ""
const shortly = process.argv[3] === "short"

const forever = Effect.gen(function* () {
  for (;;) {
    yield* Effect.scoped(
      Effect.gen(function* () {
        process.stdout.write("starting\n")
        const run = yield* startJob({
          command: shell(`trap '' TERM; setsid sleep 300 & ${shortly ? "exit" : "sleep 300"}; : ${marker}`),
          limits: { timeout_ms: 300_000 }
        })
        process.stdout.write("running\n")
        yield* run.result
      })
    )
  }
})

await Effect.runPromise(withJail(forever))

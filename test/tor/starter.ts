/** Starts a network in the folder that is named, says so, and holds it until it is killed. */
import { Effect } from "effect"
import { startPrivateTorNetwork } from "../../src/adapters/tor/lab/PrivateTorNetwork.ts"

const hold = Effect.andThen(
  startPrivateTorNetwork({ parent: process.argv[2] as string }),
  Effect.andThen(
    Effect.sync(() => process.stdout.write("stands\n")),
    Effect.never
  )
)

void Effect.runPromise(Effect.scoped(hold))

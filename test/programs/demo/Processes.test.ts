import { existsSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { startService } from "../../../src/programs/demo/Processes.ts"
import { temporaryFolder } from "../../adapters/support/folders.ts"
import { processesWith, waitUntil } from "../../support/Program.ts"

describe("a program of the demo", () => {
  it.live("is gone with all that it has started, though it ends without waiting for that", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const started = join(folder, "started")
      // What it starts knows no SIGTERM, and ends with this test at the latest.
      const child = `trap "" TERM; echo > ${started}; exec tail --pid=${process.pid} -f ${started}`
      const service = startService({
        name: "parent",
        command: ["sh", "-c", `sh -c '${child}' & trap "exit 0" TERM; wait`],
        environment: {},
        logFile: join(folder, "log")
      })
      const isUp = () => existsSync(started)
      yield* Effect.scoped(
        Effect.andThen(
          service,
          Effect.promise(() => waitUntil("what it starts", isUp))
        )
      )
      assert.deepStrictEqual(processesWith(started), [])
    })
  )
})

import { join } from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { temporaryFolder } from "../support/folders.ts"
import { run } from "./support.ts"

it.effect("a package of 120 MiB is built and opened in hardly more memory than one of 24 MiB", () =>
  Effect.gen(function* () {
    const script = join(import.meta.dirname, "../support/packageMemory.ts")
    const rise = Number(run(process.execPath, [script, yield* temporaryFolder, "120"]).toString())
    assert.isFalse(Number.isNaN(rise))
    assert.isBelow(rise, 64 * 1024 * 1024)
  })
)

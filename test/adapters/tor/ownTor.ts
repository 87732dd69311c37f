/** A program that starts a tor of its own in the folder it is given, writes its process id there, and waits to be killed. */
import { renameSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Effect } from "effect"
import { openTor } from "../../../src/adapters/tor/TorNode.ts"
import { settingsOf } from "./support.ts"

const folder = process.argv[2] as string
const program = Effect.gen(function* () {
  const { pid } = yield* openTor({ folder, settings: settingsOf(), proxy: null, socks: true, lines: [] })
  writeFileSync(join(folder, "pid.new"), String(pid))
  renameSync(join(folder, "pid.new"), join(folder, "ready"))
  return yield* Effect.never
})
await Effect.runPromise(Effect.scoped(program))

import { chownSync, mkdirSync, symlinkSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import { requireSocketPlace } from "../../src/adapters/agent/SocketPlace.ts"
import { temporaryFolder } from "./support/folders.ts"

const rootUid = 0
const somebody = 65_534
const isRoot = process.geteuid?.() === rootUid

describe("the place of an agent's socket", () => {
  it.effect("is that of the user, of root, or any for root", () =>
    Effect.gen(function* () {
      const home = yield* temporaryFolder
      const folder = join(home, "state")
      mkdirSync(folder, { mode: 0o700 })
      const link = join(home, "link")
      symlinkSync(folder, link)
      if (isRoot) chownSync(folder, somebody, somebody)
      const owner = isRoot ? somebody : (process.geteuid?.() ?? 0)
      const taken = Effect.fnUntraced(function* (path: string, own: number) {
        return Exit.isSuccess(yield* Effect.exit(requireSocketPlace(path, own)))
      })
      for (const path of [folder, link])
        assert.deepStrictEqual(
          [yield* taken(path, owner), yield* taken(path, rootUid), yield* taken(path, owner + 1)],
          [true, true, false]
        )
      assert.isTrue(yield* taken(join(home, "nothing"), owner))
    })
  )
})

/** Files that are carried away, such as recovery keys. */
import { readFileSync, rmSync, statSync, symlinkSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { createCarriedFile, errorCode } from "../../src/adapters/files/AtomicFile.ts"
import { temporaryFolder } from "./support/folders.ts"

const codeOf = (path: string): string | undefined => {
  try {
    createCarriedFile(path, new Uint8Array(1))
    return undefined
  } catch (error) {
    return errorCode(error)
  }
}

describe("a file to carry away", () => {
  it.effect("is private, and never written over anything, nor through a link", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const path = join(folder, "recovery.key")
      createCarriedFile(path, Uint8Array.of(1, 2, 3))
      assert.deepEqual([...readFileSync(path)], [1, 2, 3])
      assert.strictEqual(statSync(path).mode & 0o777, 0o600)
      assert.strictEqual(codeOf(path), "EEXIST")
      assert.deepEqual([...readFileSync(path)], [1, 2, 3])
      rmSync(path)
      symlinkSync(join(folder, "elsewhere"), path)
      assert.strictEqual(codeOf(path), "EEXIST")
      assert.strictEqual(codeOf(join(folder, "missing", "key")), "ENOENT")
    })
  )
})

/** The file of a download: what it says after a crash is true, whatever came in which order. */
import { cpSync, existsSync, mkdtempSync, readFileSync, truncateSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import fc from "fast-check"
import { heldSpans, openGrowing } from "../../src/adapters/packages/GrowingFile.ts"
import { missingSpans, spannedBytes } from "../../src/schemas/Spans.ts"
import { temporaryFolder } from "./support/folders.ts"
import { property } from "./support/properties.ts"

const total = 6_000
const content = Uint8Array.from({ length: total }, (_, index) => 1 + (index % 251))

const opened = (path: string) => Effect.acquireRelease(openGrowing(path), (file) => Effect.ignore(file.close))

/** Every byte that the file says it holds is the right one. */
const isTruthful = (path: string) =>
  Effect.map(heldSpans(path), (held) => {
    const bytes = existsSync(path) ? readFileSync(path) : Buffer.alloc(0)
    for (const { from, until } of held) {
      assert.isAtMost(until, bytes.length)
      assert.deepStrictEqual(new Uint8Array(bytes.subarray(from, until)), content.slice(from, until))
    }
    return held
  })

type Step =
  | { readonly kind: "write"; readonly at: number; readonly length: number }
  | { readonly kind: "flush" | "crash" | "close" }

const steps: fc.Arbitrary<ReadonlyArray<Step>> = fc.array(
  fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        kind: fc.constant("write" as const),
        at: fc.nat({ max: total - 1 }),
        length: fc.integer({ min: 1, max: 900 })
      })
    },
    {
      weight: 1,
      arbitrary: fc.record({ kind: fc.constantFrom("flush" as const, "crash" as const, "close" as const) })
    }
  ),
  { maxLength: 25 }
)

const follow = (
  folder: string,
  path: string,
  all: ReadonlyArray<Step>
): Effect.Effect<void, unknown, Scope.Scope> =>
  Effect.gen(function* () {
    let file = yield* opened(path)
    for (const step of all) {
      if (step.kind === "write") {
        const block = content.slice(step.at, step.at + step.length)
        yield* file.write(step.at, block)
      } else if (step.kind === "flush") {
        const before = file.heldBytes()
        yield* file.flush
        assert.strictEqual(spannedBytes(yield* isTruthful(path)), before)
      } else if (step.kind === "close") {
        yield* file.close
        file = yield* opened(path)
      } else {
        // What lies on disk at this moment is what the next life of the program finds.
        const found = mkdtempSync(join(folder, "crash-"))
        cpSync(join(path, ".."), found, { recursive: true })
        yield* isTruthful(join(found, "payload.age"))
      }
    }
    for (const { from, until } of missingSpans(yield* heldSpans(path), total))
      yield* file.write(from, content.slice(from, until))
    yield* file.close
    assert.deepStrictEqual(yield* heldSpans(path), [{ from: 0, until: total }])
    assert.deepStrictEqual(new Uint8Array(readFileSync(path)), content)
    assert.isFalse(existsSync(`${path}.parts`))
  })

const place = Effect.map(temporaryFolder, (folder) => ({
  folder,
  path: join(folder, "order", "payload.age")
}))

describe("a file that grows in parts", () => {
  it.live("says after a crash which of its parts are there, and is whole in the end", () =>
    property(steps, 60, (all) => Effect.flatMap(place, ({ folder, path }) => follow(folder, path, all)))
  )

  it.live(
    "needs no record while it grows at its end, and goes on with a file of before there were records",
    () =>
      Effect.gen(function* () {
        const { path } = yield* place
        const file = yield* opened(path)
        yield* file.write(0, content.slice(0, 100))
        yield* file.write(100, content.slice(100, 250))
        assert.isFalse(existsSync(`${path}.parts`))
        assert.deepStrictEqual(yield* heldSpans(path), [{ from: 0, until: 250 }])
        yield* file.write(1_000, content.slice(1_000, 1_100))
        // The gap does not count, though the file is longer now.
        assert.deepStrictEqual(yield* heldSpans(path), [{ from: 0, until: 250 }])
        yield* file.flush
        assert.deepStrictEqual(yield* heldSpans(path), [
          { from: 0, until: 250 },
          { from: 1_000, until: 1_100 }
        ])
      })
  )

  it.live("believes no record beyond the file's end, and none that is damaged", () =>
    Effect.gen(function* () {
      const { path } = yield* place
      const file = yield* opened(path)
      yield* file.write(0, content.slice(0, 500))
      yield* file.write(800, content.slice(800, 1_200))
      yield* file.flush
      truncateSync(path, 1_000)
      assert.deepStrictEqual(yield* heldSpans(path), [
        { from: 0, until: 500 },
        { from: 800, until: 1_000 }
      ])
      for (const damage of ["", "[[0,5", "[[5,0]]", "{}", "[[0,-1]]", "\u0000".repeat(64)]) {
        writeFileSync(`${path}.parts`, damage)
        assert.deepStrictEqual(yield* heldSpans(path), [])
      }
    })
  )
})

/** A tor of our own whose disk has no byte left: it starts as often as it must, since all it needs is there. */
import { readFileSync, statfsSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { openTor } from "../../../src/adapters/tor/TorNode.ts"
import { torPaths } from "../../../src/adapters/tor/Torrc.ts"
import { describeWith } from "../../support/requires.ts"
import { hasSmallDisk, smallDisk } from "../support/smallDisk.ts"
import { folderOf, settingsOf } from "./support.ts"

const open = (folder: string, options: ReadonlyArray<string> = ["DisableNetwork 1"]) =>
  openTor({ folder, settings: settingsOf({ options }), proxy: null, socks: true, lines: [] })

/** One life, which ends as with a kill: the process that is told by the pid file is its own. */
const life = (folder: string, during: Effect.Effect<void> = Effect.void) =>
  Effect.gen(function* () {
    const { ended, pid } = yield* open(folder)
    expect(Number(readFileSync(torPaths(folder).pid, "utf8"))).toBe(pid)
    yield* during
    process.kill(pid as number, "SIGKILL")
    return yield* ended
  }).pipe(Effect.scoped)

/** Whoever fills the disk takes what was freed too. */
const fill = (disk: string): Effect.Effect<void> =>
  Effect.sync(() => {
    for (let size = 1 << 16; size > 0; size >>= 1) {
      try {
        for (let count = 0; ; count++)
          writeFileSync(join(disk, `filler-${size}-${count}`), Buffer.alloc(size), { flag: "a" })
      } catch (error) {
        expect(error).toMatchObject({ code: "ENOSPC" })
      }
    }
    expect(statfsSync(disk).bavail).toBe(0)
  })

describe.skipIf(!hasSmallDisk())("a full disk", () => {
  describeWith(["tor"], "under a tor of our own", () => {
    it.live("keeps it from no start, and one that needs another configuration says what to do", () =>
      Effect.gen(function* () {
        const disk = yield* smallDisk(yield* folderOf("disk"), 1_024)
        const folder = join(disk, "tor")
        expect(yield* life(folder, fill(disk))).toContain("SIGKILL")
        for (let count = 0; count < 3; count++) {
          yield* fill(disk)
          expect(yield* life(folder)).toContain("SIGKILL")
        }
        const before = readFileSync(torPaths(folder).torrc, "utf8")
        expect(yield* Effect.flip(open(folder, ["DisableNetwork 1", "NumEntryGuards 2"]))).toMatchObject({
          code: "failed",
          reason: expect.stringContaining(torPaths(folder).torrc),
          mend: expect.stringContaining("room")
        })
        // What stood there was not cut off.
        expect(readFileSync(torPaths(folder).torrc, "utf8")).toBe(before)
        yield* life(folder)
      }).pipe(Effect.scoped)
    )
  })
})

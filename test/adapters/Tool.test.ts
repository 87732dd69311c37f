import { existsSync } from "node:fs"
import { join } from "node:path"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { runTool } from "../../src/adapters/Tool.ts"
import { waitUntil } from "../support/Program.ts"
import { processesOf } from "../support/torProcesses.ts"
import { temporaryFolder } from "./support/folders.ts"

const shell = (script: string, rest: { readonly input?: string; readonly timeoutMs?: number } = {}) =>
  runTool({ command: ["/bin/sh", "-c", script], timeoutMs: 20_000, ...rest })

const message = (script: string, timeoutMs = 20_000) =>
  Effect.map(Effect.flip(shell(script, { timeoutMs })), (failure) => failure.message)

describe("a tool of the system", () => {
  it.effect("is given its arguments, its input, its folder and its environment, and nothing else", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const words = yield* runTool({
        command: ["/bin/sh", "-c", 'cat; echo "$1 $COLOUR $HOME"; pwd', "sh", "a b"],
        timeoutMs: 20_000,
        folder,
        input: "read\n",
        environment: { COLOUR: "blue" }
      })
      expect(words).toBe(`read\na b blue \n${folder}\n`)
      expect(yield* shell("exit 0", { input: "x".repeat(1_000_000) })).toBe("")
    })
  )

  it.effect("fails with its own last words, or with what was done to it", () =>
    Effect.gen(function* () {
      expect(yield* message("echo 'no such key' >&2; exit 3")).toBe("/bin/sh: no such key")
      expect(yield* message("exec sleep 60", 50)).toBe("/bin/sh: it did not end within 50 ms")
      expect(yield* message("echo slow >&2; exec sleep 60", 4_000)).toBe(
        "/bin/sh: it did not end within 4000 ms; it said: slow"
      )
      expect(yield* message("yes")).toContain("maxBuffer")
      expect(yield* message("\0")).toMatch(/^\/bin\/sh cannot be started: /)
      const missing = yield* Effect.flip(runTool({ command: ["no-such-tool"], timeoutMs: 20_000 }))
      expect(missing.message).toBe("no-such-tool: there is no such program")
    })
  )

  it.effect("is gone when it is interrupted", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const started = join(folder, "started")
      const tool = yield* Effect.forkChild(
        runTool({
          // One process for as long as it runs, and with this test at the latest: a shell that starts others is there twice for a
          // moment each time.
          command: ["/bin/sh", "-c", `echo > ${started}; exec tail --pid=$PPID -f ${started}`],
          timeoutMs: 20_000
        })
      )
      yield* Effect.promise(() => waitUntil("its start", () => existsSync(started)))
      yield* Effect.promise(() => waitUntil("its process", () => processesOf(folder).length === 1))
      yield* Fiber.interrupt(tool)
      expect(processesOf(folder)).toEqual([])
    })
  )
})

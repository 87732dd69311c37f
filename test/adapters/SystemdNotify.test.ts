import { chmodSync, existsSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { SystemdNotify } from "../../src/adapters/SystemdNotify.ts"
import { ServiceManager } from "../../src/ports/ServiceManager.ts"
import { temporaryFolder } from "./support/folders.ts"

/** A folder with a `systemd-notify` that writes down what it is told, first in the PATH for as long as the scope lasts. */
const fakeNotify = Effect.gen(function* () {
  const folder = yield* temporaryFolder
  const said = join(folder, "said")
  const program = join(folder, "systemd-notify")
  writeFileSync(program, `#!/bin/sh\necho "$1" >> ${said}\n`)
  chmodSync(program, 0o755)
  const before = process.env["PATH"]
  yield* Effect.acquireRelease(
    Effect.sync(() => {
      process.env["PATH"] = `${folder}:${before ?? ""}`
    }),
    () =>
      Effect.sync(() => {
        process.env["PATH"] = before
      })
  )
  return () =>
    existsSync(said)
      ? readFileSync(said, "utf8")
          .split("\n")
          .filter((line) => line !== "")
      : []
})

const talk = Effect.gen(function* () {
  const manager = yield* ServiceManager
  yield* manager.ready
  yield* manager.stopping
})

describe("word to systemd", () => {
  it.live("goes out when somebody waits for it", () =>
    Effect.gen(function* () {
      const said = yield* fakeNotify
      yield* Effect.provide(talk, SystemdNotify({ NOTIFY_SOCKET: "/run/test" }))
      expect(said()).toEqual(["READY=1", "STOPPING=1"])
    })
  )
  it.live("is not said into the void", () =>
    Effect.gen(function* () {
      const said = yield* fakeNotify
      yield* Effect.provide(talk, SystemdNotify({}))
      expect(said()).toEqual([])
    })
  )
})

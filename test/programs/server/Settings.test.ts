import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import {
  noServerArguments,
  readSettings,
  type ServerArguments
} from "../../../src/programs/server/ServerSettings.ts"

const none: ServerArguments = noServerArguments

const file = (text: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const folder = mkdtempSync(join(tmpdir(), "postern-settings-"))
      const path = join(folder, "server.toml")
      writeFileSync(path, text)
      return path
    }),
    (path) => Effect.sync(() => rmSync(join(path, ".."), { recursive: true }))
  )

describe("the server's settings", () => {
  it.effect("work without any", () =>
    Effect.gen(function* () {
      const settings = yield* readSettings(none, { HOME: "/nowhere", XDG_STATE_HOME: "/somewhere" })
      assert.deepInclude(settings, { host: "127.0.0.1", port: 8470, addresses: [], poll_sleep_ms: 60_000 })
    })
  )

  it.effect("come from flags before the environment before the file", () =>
    Effect.gen(function* () {
      const config = yield* file(
        'state_folder = "/file"\nhost = "file"\nport = 1\naddresses = ["https://a.example"]\n'
      )
      const env = { POSTERN_CONFIG: config, POSTERN_HOST: "environment", POSTERN_PORT: "2" }
      assert.deepInclude(yield* readSettings({ ...none, port: 3 }, env), {
        state_folder: "/file",
        host: "environment",
        port: 3,
        addresses: ["https://a.example"]
      })
      assert.deepInclude(
        yield* readSettings({ ...none, config, state: "/flag" }, { POSTERN_STATE: "/env" }),
        {
          state_folder: "/flag",
          host: "file"
        }
      )
    })
  )

  it.effect("say where what is wrong was said, and end with 78", () =>
    Effect.gen(function* () {
      const reasonOf = (args: Partial<ServerArguments>, env: Record<string, string> = {}) =>
        Effect.map(Effect.flip(readSettings({ ...none, ...args }, env)), (error) => {
          assert.strictEqual(error.exitCode, 78)
          return error.message
        })
      assert.match(yield* reasonOf({ port: 70_000 }), /the command line: port/)
      assert.match(yield* reasonOf({}, { POSTERN_PORT: "many" }), /POSTERN_PORT: port/)
      assert.match(
        yield* reasonOf({ config: yield* file("colour = 1") }),
        /server\.toml:1: colour: there is no such key/
      )
      assert.match(yield* reasonOf({ config: "/none.toml" }), /no such file/)
    })
  )
})

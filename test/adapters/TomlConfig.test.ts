import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { type ConfigSources, loadConfig } from "../../src/adapters/TomlConfig.ts"
import { ClientConfig } from "../../src/schemas/ClientConfig.ts"
import { ServerConfig } from "../../src/schemas/ServerConfig.ts"
import { temporaryFolder } from "./support/folders.ts"

const load = (text: string, more: Partial<ConfigSources<ClientConfig>> = {}) =>
  Effect.gen(function* () {
    const file = join(yield* temporaryFolder, "client.toml")
    writeFileSync(file, text)
    const defaults = { state_folder: "/var/lib/postern" }
    return {
      file,
      ...(yield* loadConfig({ schema: ClientConfig, file, environment: {}, defaults, ...more }))
    }
  })

const failure = (text: string, more: Partial<ConfigSources<ClientConfig>> = {}) =>
  Effect.flip(load(text, more))

describe("the configuration", () => {
  it.effect("has a default for every key", () =>
    Effect.gen(function* () {
      const { config, digest } = yield* loadConfig({
        schema: ClientConfig,
        file: undefined,
        environment: {},
        defaults: { state_folder: "/state" }
      })
      assert.strictEqual(config.state_folder, "/state")
      assert.strictEqual(config.bwrap, "bwrap")
      assert.isNull(digest)
    })
  )

  it.effect("is overridden by the environment, and that by flags", () =>
    Effect.gen(function* () {
      const text = `name = "from-file"\nhealth_interval_ms = 2000\n[job_limits]\ntimeout_ms = 1000\n`
      const { config, digest } = yield* load(text, {
        environment: {
          POSTERN_NAME: "123",
          POSTERN_HEALTH_INTERVAL_MS: "3000",
          POSTERN_STATE: "/elsewhere",
          POSTERN_GRANTS: `{ devices = ["camera"], read_only = [] }`,
          POSTERN_NO_APT: "1",
          POSTERN_BWRAP: ""
        },
        aliases: { POSTERN_STATE: "state_folder" },
        flags: { health_interval_ms: 4000, bwrap: undefined }
      })
      assert.strictEqual(config.name, "123")
      assert.strictEqual(config.health_interval_ms, 4000)
      assert.strictEqual(config.state_folder, "/elsewhere")
      assert.deepStrictEqual(config.grants.devices, ["camera"])
      assert.deepStrictEqual(config.job_limits, { timeout_ms: 1000 })
      assert.strictEqual(config.bwrap, "bwrap")
      assert.match(digest ?? "", /^sha256:[0-9a-f]{64}$/)
    })
  )

  it.effect("serves any program's schema", () =>
    Effect.gen(function* () {
      const { config } = yield* loadConfig({
        schema: ServerConfig,
        file: undefined,
        environment: { POSTERN_PORT: "0", POSTERN_ADDRESSES: `["http://a.test", "http://b.test:80"]` },
        defaults: { state_folder: "/state" }
      })
      assert.strictEqual(config.port, 0)
      assert.deepStrictEqual(config.addresses, ["http://a.test", "http://b.test:80"])
    })
  )

  it.effect("names file, key and reason of what is wrong", () =>
    Effect.gen(function* () {
      const type = yield* failure(`name = "Not A Name"`)
      assert.match(type.source, /client\.toml$/)
      assert.strictEqual(type.key, "name")
      const range = yield* failure(`health_interval_ms = 5`)
      assert.match(range.message, /client\.toml: health_interval_ms: .*1000/)
      const nested = yield* failure(`[job_limits]\ntimeout_ms = "long"`)
      assert.strictEqual(nested.key, "job_limits.timeout_ms")
      const unknown = yield* failure(`healthinterval = 5`)
      assert.match(unknown.message, /client\.toml: healthinterval: there is no such key/)
      const deep = yield* failure(`[job_limits]\nspeed = 1`)
      assert.strictEqual(deep.key, "job_limits.speed")
      const syntax = yield* failure(`name = `)
      assert.match(syntax.message, /client\.toml: it is no TOML/)
      const environment = yield* failure("", { environment: { POSTERN_LONG_POLL_MS: "soon" } })
      assert.match(environment.message, /^POSTERN_LONG_POLL_MS: long_poll_ms: /)
      const flag = yield* failure("", { flags: { long_poll_ms: -1 } })
      assert.match(flag.message, /^the command line: long_poll_ms: /)
    })
  )

  it.effect("is not guessed when its file is missing, no file, too large or not UTF-8", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const reason = (file: string) =>
        Effect.map(
          Effect.flip(loadConfig({ schema: ClientConfig, file, environment: {} })),
          (error) => error.reason
        )
      assert.strictEqual(yield* reason(join(folder, "none.toml")), "there is no such file")
      assert.strictEqual(yield* reason(folder), "it is not a plain file")
      writeFileSync(join(folder, "large.toml"), "#".repeat(300_000))
      assert.match(yield* reason(join(folder, "large.toml")), /300000 bytes/)
      writeFileSync(join(folder, "latin.toml"), Buffer.from("# \xe4\n", "latin1"))
      assert.match(yield* reason(join(folder, "latin.toml")), /not valid/)
    })
  )
})

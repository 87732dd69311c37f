import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { type ConfigSources, loadConfig } from "../../src/adapters/TomlConfig.ts"
import { ClientConfig } from "../../src/schemas/ClientConfig.ts"
import { ServerConfig } from "../../src/schemas/ServerConfig.ts"
import { settingsOf } from "../../src/schemas/Setting.ts"
import { commentedToml, tomlOf } from "../../src/schemas/SettingText.ts"
import { temporaryFolder } from "./support/folders.ts"

const load = (text: string, more: Partial<ConfigSources<ClientConfig>> = {}) =>
  Effect.gen(function* () {
    const file = join(yield* temporaryFolder, "client.toml")
    writeFileSync(file, text)
    const defaults = { state_folder: "/var/lib/postern" }
    return {
      ...(yield* loadConfig({ schema: ClientConfig, file, environment: {}, defaults, ...more })),
      file
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

  it.effect("says where each value comes from", () =>
    Effect.gen(function* () {
      const { effective, file } = yield* load("bwrap = '/opt/bwrap'\n[job_limits]\ngrace_ms = 1\n", {
        environment: { POSTERN_JOB_LIMITS_TIMEOUT_MS: "500", POSTERN_STATE: "/s" },
        flags: { name: "pi" }
      })
      const from = (key: string) => effective.find(({ setting }) => setting.key === key)
      assert.deepInclude(from("bwrap"), { value: "/opt/bwrap", source: `${file}:1` })
      assert.deepInclude(from("job_limits.grace_ms"), { value: 1, source: `${file}:3` })
      assert.deepInclude(from("job_limits.timeout_ms"), {
        value: 500,
        source: "POSTERN_JOB_LIMITS_TIMEOUT_MS"
      })
      assert.deepInclude(from("state_folder"), { value: "/s", source: "POSTERN_STATE" })
      assert.deepInclude(from("name"), { value: "pi", source: "the command line" })
      assert.deepInclude(from("long_poll_ms"), { value: 25_000, source: "default" })
    })
  )

  it.effect("takes every key from the environment, those in tables too, before the file", () =>
    Effect.gen(function* () {
      const wanted: Record<string, unknown> = {}
      const environment: Record<string, string> = {}
      for (const setting of settingsOf(ClientConfig)) {
        if (setting.isTable) continue
        const value = setting.notes.example ?? setting.fallback
        wanted[setting.key] = value
        environment[setting.environment] = typeof value === "string" ? value : tomlOf(value)
      }
      const text = "[job_limits]\ntimeout_ms = 1\n[grants]\ndevices = ['other']\n"
      const { effective } = yield* load(text, { environment })
      const opened = (value: unknown) => (Redacted.isRedacted(value) ? Redacted.value(value) : value)
      assert.deepStrictEqual(
        Object.fromEntries(effective.map((one) => [one.setting.key, opened(one.value)])),
        wanted
      )
      for (const { setting, source } of effective) assert.strictEqual(source, setting.environment)
    })
  )

  it.effect("takes the example file, as it stands and with every setting in it", () =>
    Effect.gen(function* () {
      for (const schema of [ClientConfig, ServerConfig]) {
        const text = commentedToml(schema, "An example.")
        const file = join(yield* temporaryFolder, "example.toml")
        const read = () =>
          loadConfig<object>({ schema, file, environment: {}, defaults: { state_folder: "/state" } })
        writeFileSync(file, text)
        const { effective } = yield* read()
        assert.strictEqual(effective.length, settingsOf(schema).filter((one) => !one.isTable).length)
        assert.isTrue(
          effective.every((one) => one.source === "default" || one.setting.key === "state_folder")
        )
        writeFileSync(file, text.replaceAll(/^#(?! )/gm, ""))
        const all = yield* read()
        assert.isTrue(all.effective.every((one) => one.source.startsWith(file)))
      }
    })
  )

  it.effect("names file, line, key and reason of what is wrong", () =>
    Effect.gen(function* () {
      const problem = (text: string, more: Partial<ConfigSources<ClientConfig>> = {}) =>
        Effect.map(failure(text, more), (error) => {
          assert.lengthOf(error.problems, 1, error.message)
          return error.message.replace(/^.*client\.toml/, "client.toml")
        })
      assert.match(
        yield* problem(`name = "Not A Name"`),
        /^client\.toml:1: name: it must be 1 to 63 .*, not "Not/
      )
      assert.match(
        yield* problem(`# first\nhealth_interval_ms = 5`),
        /^client\.toml:2: health_interval_ms: it must be a whole number from 1000 to 86400000 \(milliseconds\), not 5$/
      )
      assert.match(
        yield* problem(`[job_limits]\ntimeout_ms = "long"`),
        /^client\.toml:2: job_limits\.timeout_ms: .*, not "long"$/
      )
      assert.match(yield* problem(`grants = 3`), /^client\.toml:1: grants: it must be a table, not 3$/)
      assert.match(
        yield* problem(`grants.devices = ["a", "B"]`),
        /^client\.toml:1: grants\.devices: .*"B"\]$/
      )
      assert.strictEqual(
        yield* problem(`health_intervall_ms = 5`),
        "client.toml:1: health_intervall_ms: there is no such key; did you mean health_interval_ms?"
      )
      assert.strictEqual(yield* problem(`colour = 5`), "client.toml:1: colour: there is no such key")
      assert.strictEqual(
        yield* problem(`[job_limits]\ntimeout = 1\n`),
        "client.toml:2: job_limits.timeout: there is no such key"
      )
      assert.strictEqual(
        yield* problem(`[job_limits]\ntime_out_ms = 1\n`),
        "client.toml:2: job_limits.time_out_ms: there is no such key; did you mean timeout_ms?"
      )
      assert.match(yield* problem(`\nname = `), /^client\.toml: it is no TOML: .*line 2/)
      assert.match(
        yield* problem("", { environment: { POSTERN_LONG_POLL_MS: "soon" } }),
        /^POSTERN_LONG_POLL_MS: long_poll_ms: .*, not "soon"$/
      )
      assert.match(
        yield* problem("[job_limits]\n", { environment: { POSTERN_JOB_LIMITS_GRACE_MS: "-1" } }),
        /^POSTERN_JOB_LIMITS_GRACE_MS: job_limits\.grace_ms: .*, not -1$/
      )
      assert.strictEqual(
        yield* problem("", { environment: { POSTERN_LONGPOLL_MS: "1" } }),
        "POSTERN_LONGPOLL_MS: no key has this name; did you mean POSTERN_LONG_POLL_MS?"
      )
      assert.match(
        yield* problem("", { flags: { long_poll_ms: -1 } }),
        /^the command line: long_poll_ms: .*, not -1$/
      )
      assert.match(
        yield* problem("", { defaults: {} }),
        /^the configuration: state_folder: it is missing: it must be a folder's path$/
      )
    })
  )

  it.effect("names everything that is wrong at once", () =>
    Effect.gen(function* () {
      const { problems } = yield* failure(
        `sever = "https://a.test"\nhealth_interval_ms = 5\n\n[grants]\nread_only = ["relative"]\nspeed = 1\n`,
        { environment: { POSTERN_BWRAP: "bwrap", POSTERN_STATES: "/s", POSTERN_LONG_POLL_MS: "70000" } }
      )
      assert.sameMembers(
        problems.map(({ key, source }) => key || source),
        ["sever", "health_interval_ms", "grants.read_only", "grants.speed", "long_poll_ms", "POSTERN_STATES"]
      )
      assert.match(problems.find(({ key }) => key === "sever")?.reason ?? "", /did you mean server\?$/)
    })
  )

  it.effect("leaves other programs' variables alone", () =>
    Effect.gen(function* () {
      const environment = {
        POSTERN_HOME: "/home",
        POSTERN_PASSPHRASE_FILE: "/p",
        POSTERN_TOKEN_FILE: "/t",
        POSTERN_INVITATION: "i",
        POSTERN_CONFIG: "c",
        POSTERN_HOST: "h",
        POSTERN_PORT: "1",
        NAMES: "x"
      }
      const { effective } = yield* load("", { environment })
      assert.isTrue(effective.every(({ source }) => !(source in environment)))
    })
  )

  it.effect("is not guessed when its file is missing, no file, too large or not UTF-8", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const reason = (file: string) =>
        Effect.map(
          Effect.flip(loadConfig({ schema: ClientConfig, file, environment: {} })),
          ({ message }) => message
        )
      assert.match(yield* reason(join(folder, "none.toml")), /none\.toml: there is no such file$/)
      assert.match(yield* reason(folder), /: it is not a plain file$/)
      writeFileSync(join(folder, "large.toml"), "#".repeat(300_000))
      assert.match(yield* reason(join(folder, "large.toml")), /300000 bytes/)
      writeFileSync(join(folder, "latin.toml"), Buffer.from("# \xe4\n", "latin1"))
      assert.match(yield* reason(join(folder, "latin.toml")), /not valid/)
    })
  )
})

import { Schema } from "effect"
import { describe, expect, it } from "vitest"
import { ClientConfig } from "../../src/schemas/ClientConfig.ts"
import { ServerConfig } from "../../src/schemas/ServerConfig.ts"
import {
  configuration,
  optionalSetting,
  setting,
  settingsOf,
  settingTable
} from "../../src/schemas/Setting.ts"
import { commentedToml, fallbackText, formOf, tomlOf } from "../../src/schemas/SettingText.ts"

const programs = [
  ["client", ClientConfig],
  ["server", ServerConfig]
] as const

describe("a setting", () => {
  it("cannot be declared without its words", () => {
    // @ts-expect-error a key without words does not compile
    const bare = configuration({ key: Schema.String })
    expect(() => settingsOf(bare)).toThrow(/key was not declared/)
  })

  it.each(programs)("of the %s has words, a form and a variable of its own", (_name, schema) => {
    const settings = settingsOf(schema)
    for (const one of settings) {
      expect(one.notes.description, one.key).toMatch(/^\p{L}.*\.$/u)
      expect(formOf(one), one.key).not.toMatch(/\.$|undefined/)
      expect(fallbackText(one), one.key).not.toBe("")
    }
    const names = settings.flatMap(({ environment, notes }) => [environment, notes.alias ?? []].flat())
    expect(new Set(names).size).toBe(names.length)
  })

  it.each(programs)("of the %s has an example that is a good value", (_name, schema) => {
    for (const { isTable, key, notes, values } of settingsOf(schema)) {
      if (isTable || notes.example === undefined) continue
      expect(Schema.decodeUnknownExit(values)(notes.example)._tag, key).toBe("Success")
    }
  })
})

describe("the words for settings", () => {
  const schema = configuration({
    mode: setting(Schema.Literals(["fast", "slow"]), "fast", { description: "How it goes." }),
    ratio: setting(Schema.Finite, 0.5, { description: "How much." }),
    on: setting(Schema.Boolean, true, { description: "Whether it goes." }),
    inner: settingTable(
      {
        labels: optionalSetting(Schema.Array(Schema.String), {
          description: "What it is called.",
          example: ["a"]
        })
      },
      { description: "More of it." }
    )
  })

  it("say what values must be", () => {
    expect(settingsOf(schema).map(formOf)).toEqual([
      '"fast" or "slow"',
      "a number",
      "true or false",
      "a table",
      "a list of values, each a text"
    ])
  })

  it("make an example file", () => {
    expect(commentedToml(schema, "Head.")).toBe(`# Head.

# How it goes.
# "fast" or "slow"; default: "fast".
#mode = "fast"

# How much.
# A number; default: 0.5.
#ratio = 0.5

# Whether it goes.
# True or false; default: true.
#on = true

# More of it.
[inner]

# What it is called.
# A list of values, each a text; default: none.
#labels = ["a"]
`)
  })

  it("write values as TOML does", () => {
    expect(tomlOf({ a: ["x", 'q"'], b: { c: 1 }, d: {} })).toBe(
      '{ a = ["x", "q\\""], b = { c = 1 }, d = {} }'
    )
  })
})

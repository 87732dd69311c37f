import { readFileSync } from "node:fs"
import { join } from "node:path"
import { describe, expect, it } from "@effect/vitest"
import type { Schema } from "effect"
import { conditionTexts } from "../../src/schemas/Conditions.ts"
import { brokenLayers } from "../../src/schemas/Connectivity.ts"
import { HealthReport, healthVersion } from "../../src/schemas/Health.ts"
import { historyTexts } from "../../src/schemas/History.ts"
import { Limits } from "../../src/schemas/Limits.ts"

const page = readFileSync(join(import.meta.dirname, "../../docs/health.md"), "utf8")

interface Parts {
  readonly fields?: Readonly<Record<string, Schema.Top>>
  readonly members?: ReadonlyArray<Schema.Top>
  readonly schema?: Schema.Top
  readonly value?: Schema.Top
  readonly rest?: ReadonlyArray<Schema.Top>
}

/** Every member a schema knows, by path: through structs, structs or null, and lists. */
const membersOf = (schema: Schema.Top, at = ""): ReadonlyArray<string> => {
  const { fields, members, rest, schema: element, value } = schema as Schema.Top & Parts
  if (members !== undefined) return [...new Set(members.flatMap((member) => membersOf(member, at)))]
  const inner = value ?? element ?? rest?.[0]
  if (fields === undefined) return inner === undefined ? [at] : membersOf(inner, at)
  const below = Object.entries(fields).flatMap(([name, field]) =>
    membersOf(field, at === "" ? name : `${at}.${name}`)
  )
  return at === "" ? below : [at, ...below]
}

const names = (text: string): ReadonlyArray<string> =>
  [...text.matchAll(/`([a-z_][a-z_0-9.]*)`/g)].map(([, name]) => name as string)

/** Rows of the first table below a heading, without its head. */
const rows = (heading: string): ReadonlyArray<ReadonlyArray<string>> => {
  const start = page.indexOf(`\n${heading}\n`)
  if (start < 0) throw new Error(`docs/health.md has no heading "${heading}"`)
  const lines = page.slice(start).split("\n")
  const first = lines.findIndex((line) => line.startsWith("|---"))
  const table = lines.slice(first + 1)
  return table
    .slice(
      0,
      table.findIndex((line) => !line.startsWith("|"))
    )
    .map((line) =>
      line
        .split("|")
        .slice(1, -1)
        .map((cell) => cell.trim())
    )
}

/** The members the report's table names: in its first column, and in braces in the third. */
const documented = rows("## The report").flatMap(([first = "", , third = ""]) => {
  const own = names(first)
  const inner = /\{([^{}]*)\}/.exec(third)?.[1]
  return inner === undefined ? own : [...own, ...names(inner).map((name) => `${own[0]}.${name}`)]
})

describe("docs/health.md", () => {
  it("names exactly the members of a report, each once", () => {
    const known = membersOf(HealthReport)
    expect(known).toContain("processes.required.running")
    expect(known).toContain("link.last_outage.until_at_ms")
    expect([...documented].sort()).toEqual([...known].sort())
    expect(page).toContain(`Version ${healthVersion} (`)
  })

  it("says of each condition what it means and what mends it, as the program does", () => {
    const told = rows("## Conditions").map(([code = "", means, mend]) => [names(code)[0], means, mend])
    expect(told).toEqual(Object.entries(conditionTexts).map(([code, { means, mend }]) => [code, means, mend]))
  })

  it("names the layers of the network from the bottom up", () => {
    expect(rows("### The network, layer by layer").map(([layer = ""]) => names(layer)[0])).toEqual([
      ...brokenLayers
    ])
  })

  it("names each kind of event, with the history's bounds", () => {
    expect(rows("## The history").map(([kind = "", text]) => [names(kind)[0], text])).toEqual(
      Object.entries(historyTexts)
    )
    expect(page).toContain(`newest ${Limits.historyEventsOfKind} events of each kind`)
    expect(page).toContain(`at most ${Limits.historyBytes / 1024 / 1024} MiB`)
  })
})

import { readFileSync } from "node:fs"
import { join } from "node:path"
import { describe, expect, it } from "@effect/vitest"
import type { Schema } from "effect"
import { Manifest } from "../../src/schemas/Manifest.ts"
import { Receipt } from "../../src/schemas/Receipt.ts"
import { CancelOrder, WorkOrder } from "../../src/schemas/WorkOrder.ts"

const page = readFileSync(join(import.meta.dirname, "../../docs/work-packages.md"), "utf8")

interface Parts {
  readonly fields?: Readonly<Record<string, Schema.Top>>
  readonly members?: ReadonlyArray<Schema.Top>
  readonly value?: Schema.Top
}

/** Every member a schema knows, by path: through structs, structs or null, and records (`*` for any key). */
const membersOf = (schema: Schema.Top, at = ""): ReadonlyArray<string> => {
  const { fields, members, value } = schema as Schema.Top & Parts
  if (members !== undefined) return [...new Set(members.flatMap((member) => membersOf(member, at)))]
  if (value !== undefined && "fields" in value) return [at, ...membersOf(value, `${at}.*`).slice(1)]
  if (fields === undefined) return [at]
  const below = Object.entries(fields).flatMap(([name, field]) =>
    membersOf(field, at === "" ? name : `${at}.${name}`)
  )
  return at === "" ? below : [at, ...below]
}

const names = (text: string): ReadonlyArray<string> =>
  [...text.matchAll(/`([a-z_][a-z_.]*)`/g)].map(([, name]) => name as string)

/** What stands between a heading and the next one. */
const section = (heading: string): string => {
  const start = page.indexOf(`\n${heading}\n`)
  if (start < 0) throw new Error(`docs/work-packages.md has no heading "${heading}"`)
  const body = page.slice(start + heading.length + 2)
  return body.slice(0, body.search(/^#/m) >>> 0)
}

/** Rows of a section's first table, without its head. */
const rows = (heading: string): ReadonlyArray<ReadonlyArray<string>> => {
  const lines = section(heading).split("\n")
  const start = lines.findIndex((line) => line.startsWith("|---"))
  const table = lines.slice(start + 1)
  const end = table.findIndex((line) => !line.startsWith("|"))
  return table.slice(0, end).map((line) => line.split("|").slice(1, -1))
}

/** The members a section's table names: in its first column, and in braces in the second. */
const documented = (heading: string): ReadonlyArray<string> =>
  rows(heading).flatMap(([first = "", second = ""]) => {
    const [member, ...others] = names(first)
    const inner = /\{(`[^{}]*`)\}/.exec(second)?.[1]
    if (member === undefined || inner === undefined) return names(first)
    const parent = second.includes("{path:") ? `${member}.*` : member
    return [member, ...others, ...names(inner).map((name) => `${parent}.${name}`)]
  })

/** A group named by dots (`limits.timeout_ms`) has no row of its own. */
const withGroups = (paths: ReadonlyArray<string>): ReadonlyArray<string> => [
  ...new Set(paths.flatMap((path) => (/^\w+\.\w+$/.test(path) ? [path.replace(/\..*/, ""), path] : [path])))
]

const sorted = (paths: ReadonlyArray<string>): ReadonlyArray<string> => [...paths].sort()

const typeOf = (schema: { readonly fields: { readonly type: { readonly literal: string } } }): string =>
  schema.fields.type.literal

describe("docs/work-packages.md", () => {
  it.each([
    { document: "manifest", heading: "### manifest.json", schema: Manifest, some: "files.*.executable" },
    { document: "order", heading: "## The order", schema: WorkOrder, some: "payload.unpacked_bytes" },
    { document: "receipt", heading: "## The receipt", schema: Receipt, some: "output.kept_bytes" }
  ])("names exactly the members of the $document", ({ heading, schema, some }) => {
    const known = membersOf(schema)
    expect(known).toContain(some)
    expect(sorted(withGroups(documented(heading)))).toEqual(sorted(known))
    expect(section(heading)).toContain(`"${typeOf(schema)}"`)
  })

  it("names each member once", () => {
    for (const heading of ["### manifest.json", "## The order", "## The receipt"]) {
      const members = documented(heading)
      expect(members).toEqual([...new Set(members)])
    }
  })

  it("names exactly the members of the cancel", () => {
    const list = section("### Cancel").split(";")[0] as string
    expect(sorted(names(list))).toEqual(sorted(membersOf(CancelOrder)))
    expect(list).toContain(`"${typeOf(CancelOrder)}"`)
  })
})

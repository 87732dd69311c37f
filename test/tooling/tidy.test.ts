import { join } from "node:path"
import { describe, expect, it } from "vitest"
import { readTree, render, tidy } from "./tidy/Tidy.ts"

const root = join(import.meta.dirname, "../..")

const entriesOf = (tree: ReadonlyMap<string, string>): ReadonlyArray<string> => [
  ...JSON.parse(tree.get("scripts/programs.json") ?? "[]").flatMap(
    (program: { entry: string; first?: string; thread?: string }) =>
      [program.entry, program.first, program.thread].filter((entry) => entry !== undefined)
  ),
  ...JSON.parse(tree.get("scripts/libraries.json") ?? "[]").flatMap(
    (library: { entries: Record<string, string> }) => Object.values(library.entries)
  )
]

/** A checkout without any breach, to which each case below adds one file. */
const clean: ReadonlyArray<readonly [string, string]> = [
  [".npmrc", "ignore-scripts=true\n"],
  ["package.json", '{ "dependencies": { "effect": "4.1.0" } }'],
  ["package-lock.json", '{ "packages": { "": {}, "node_modules/effect": { "integrity": "sha512-AA==" } } }'],
  ["src/programs/client.ts", 'import { add } from "../actors/Adder.ts"\nadd(1, 2)\n'],
  ["src/actors/Adder.ts", "export const add = (left: number, right: number) => left + right\n"],
  ["test/actors/Adder.test.ts", 'it("adds", () => expect(add(1, 2)).toBe(3))\n'],
  ["README.md", "A gate in the wall.\n"]
]

const entries = ["src/programs/client.ts"]

const rulesBreachedBy = (path: string, text: string): ReadonlyArray<string> => [
  ...new Set(tidy(new Map([...clean, [path, text]]), entries).map((finding) => finding.rule))
]

/** Adds a file to the actors that a program imports, so that it is no orphan. */
const inActors = (text: string): readonly [string, string] => ["src/actors/Adder.ts", text]
const inTest = (text: string): readonly [string, string] => ["test/actors/Adder.test.ts", text]

const cases: ReadonlyArray<readonly [string, readonly [string, string]]> = [
  ["file-length", inActors("export const add = 1\n".padEnd(421, "\n"))],
  ["function-length", inActors(`export const add = () => {\n${"\n".repeat(70)}}\n`)],
  ["banned-call", inActors("export const add = () => Date.now()\n")],
  ["banned-call", inActors("export const add = [1].map(Math.random)\n")],
  ["banned-call", inActors("export const add = new Date(0)\n")],
  ["banned-call", inActors("export const add = performance.now()\n")],
  ["banned-call", inActors("export const add = crypto.randomUUID()\n")],
  ["banned-call", inActors("export const add = globalThis.crypto.getRandomValues\n")],
  ["banned-call", inActors('export const add = Effect.die("no")\n')],
  ["banned-call", inActors("export const add = Queue.unbounded<number>()\n")],
  ["banned-call", inActors("export const add = PubSub.unbounded<number>()\n")],
  ["banned-call", inActors('export const add = () => console.log("here")\n')],
  ["open-end", inActors(`// ${"TO"}${"DO"}: finish\nexport const add = 1\n`)],
  ["open-end", ["README.md", `${"FIX"}${"ME"}\n`]],
  ["swallowed-error", inActors("export const add = () => { try { go() } catch {} }\n")],
  ["focused-or-skipped", inTest('it.only("adds", () => expect(1).toBe(1))\n')],
  ["focused-or-skipped", inTest('describe.skip("adder", () => it("adds", () => expect(1).toBe(1)))\n')],
  ["focused-or-skipped", inTest('it.effect.skip("adds", () => expect(1).toBe(1))\n')],
  ["asserts-nothing", inTest('it("adds", () => { add(1, 2) })\n')],
  ["asserts-nothing", inTest('it.each([1, 2])("adds", () => { add(1, 2) })\n')],
  ["asserts-nothing", inTest('it.effect("adds", () => Effect.sync(() => add(1, 2)))\n')],
  ["orphan", ["src/actors/Lonely.ts", "export const lonely = 1\n"]],
  ["orphan", ["test/support/unused.ts", "export const unused = 1\n"]],
  ["exact-version", ["package.json", '{ "devDependencies": { "effect": "^4.1.0" } }']],
  ["lock-integrity", ["package-lock.json", '{ "packages": { "node_modules/effect": {} } }']],
  [
    "install-script",
    [
      "package-lock.json",
      '{ "packages": { "node_modules/x": { "integrity": "", "hasInstallScript": true } } }'
    ]
  ],
  ["install-script", [".npmrc", "fund=false\n"]],
  [
    "lock-host",
    [
      "package-lock.json",
      '{ "packages": { "node_modules/x": { "integrity": "", "resolved": "https://x" } } }'
    ]
  ],
  ["machine-place", ["README.md", `See /work/${"main"}/README.md\n`]],
  ["machine-place", inActors(`export const add = "/root/${".ssh"}/id"\n`)],
  ["merge-marker", ["README.md", `${"<".repeat(7)} HEAD\n`]]
]

describe("tidy", () => {
  it("finds nothing in this checkout", () => {
    const tree = readTree(root)
    expect(tidy(tree, entriesOf(tree)).map(render)).toEqual([])
  })

  it("reads the whole checkout", () => {
    const tree = readTree(root)
    const expected = ["package.json", "package-lock.json", ".npmrc", ".ci/run", "src/schemas/Limits.ts"]
    expect([...tree.keys()]).toEqual(expect.arrayContaining(expected))
  })

  it("finds nothing in a clean checkout", () => {
    expect(tidy(new Map(clean), entries).map(render)).toEqual([])
  })

  for (const [rule, [path, text]] of cases) {
    it(`finds ${rule} in ${path}: ${text.trim().slice(0, 60).replaceAll("\n", " ")}`, () => {
      expect(rulesBreachedBy(path, text)).toContain(rule)
    })
  }

  it("finds a module that is not named after what it exports", () => {
    expect(rulesBreachedBy("src/actors/adder.ts", "export const add = 1\n")).toContain("module-name")
  })

  it("finds a port that imports more than types from crypto", () => {
    const value = 'import { seal } from "../crypto/Sealing.ts"\nexport const port = seal\n'
    const type = 'import type { Seal } from "../crypto/Sealing.ts"\nexport type Port = Seal\n'
    expect(rulesBreachedBy("src/ports/Sealer.ts", value)).toContain("ports-take-types")
    expect(rulesBreachedBy("src/ports/Sealer.ts", type)).not.toContain("ports-take-types")
  })

  it("lets banned calls stand in their rooms, in strings and in comments", () => {
    const words = '// Date.now()\nexport const add = "Math.random()" + `console.log`\n'
    expect(rulesBreachedBy(...inActors(words))).toEqual([])
    const own = "export const add = () => {\n  const crypto = { sign: () => 1 }\n  return crypto.sign()\n}\n"
    expect(rulesBreachedBy(...inActors(own))).toEqual([])
    expect(rulesBreachedBy("src/adapters/Clock.ts", "export const now = Date.now\n")).toEqual(["orphan"])
  })

  it("accepts an assertion in a helper, and a catch that says why it is empty", () => {
    const helper = "const check = (value: number) => expect(value).toBe(3)\n"
    expect(rulesBreachedBy(...inTest(`${helper}it("adds", () => check(add(1, 2)))\n`))).toEqual([])
    const catching = "export const add = () => { try { go() } catch { /* it is gone already */ } }\n"
    expect(rulesBreachedBy(...inActors(catching))).toEqual([])
  })
})

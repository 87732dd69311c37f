import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { describe, expect, it } from "vitest"
import { parse } from "./tidy/Source.ts"

const root = join(import.meta.dirname, "../..")
const read = (path: string): string => readFileSync(join(root, path), "utf8")
const { dependencies, devDependencies, optionalDependencies } = JSON.parse(read("package.json"))

/** The packages that the files below a folder import, Node's own modules apart. */
const importedBelow = (folder: string): ReadonlyArray<string> => {
  const files = readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
  const packages = files
    .filter((file) => file.endsWith(".ts"))
    .flatMap((file) => parse(file, read(join(folder, file))).imports)
    .map(({ specifier }) => specifier)
    .filter((specifier) => !/^(node:|\.)/.test(specifier))
    .map((specifier) => /^(?:@[^/]+\/)?[^/]+/.exec(specifier)?.[0] as string)
  return [...new Set(packages)].sort()
}

/** The packages named in the first column of ARCHITECTURE.md's tables of dependencies. */
const explained = (): ReadonlyArray<string> => {
  const [, chapter = ""] = read("ARCHITECTURE.md").split("\n## Dependencies, and why\n")
  return chapter
    .split(/\n## /)[0]!
    .split("\n")
    .filter((line) => line.startsWith("| `"))
    .flatMap((line) => [...line.split("|")[1]!.matchAll(/`([^`]+)`/g)].map(([, name]) => name as string))
}

describe("the lists of dependencies", () => {
  it("hold under dependencies exactly what the sources import", () => {
    expect(importedBelow("src")).toEqual(Object.keys(dependencies).sort())
  })

  it("are explained in ARCHITECTURE.md, package by package", () => {
    const listed = Object.keys({ ...dependencies, ...devDependencies, ...optionalDependencies })
    expect([...explained()].sort()).toEqual(listed.sort())
  })
})

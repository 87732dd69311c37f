// Bundles each program into one file that runs when it is copied alone onto a machine with Node >= 22.19.

import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { join, sep } from "node:path"
import { gzipSync } from "node:zlib"
import { bundle, type Program } from "./lib/bundle.ts"
import { buildLibrary, type Library, leftovers } from "./lib/library.ts"

const root = join(import.meta.dirname, "..")
const dist = join(root, "dist")
const at = (path: string) => join(root, path)

/** Programs that are still to be written may be missing only as long as this says so. */
const MISSING_ENTRIES_ARE_ERRORS = true

const programs: ReadonlyArray<Program> = JSON.parse(readFileSync(at("scripts/programs.json"), "utf8"))
const libraries: ReadonlyArray<Library> = JSON.parse(readFileSync(at("scripts/libraries.json"), "utf8"))

/** Replaces a file in one step, so that a program being started never sees half of it. */
const place = (name: string, text: string, mode = 0o644, folder = dist): void => {
  const partial = join(folder, `.${name}.${process.pid}`)
  writeFileSync(partial, text, { mode })
  renameSync(partial, join(folder, name))
}

/** A library's files: what others load stands before them, and what is of an earlier build goes last. */
const placeLibrary = async (library: Library): Promise<ReadonlyArray<string>> => {
  const { files, modules } = await buildLibrary(root, library)
  const folder = join(dist, library.name)
  mkdirSync(folder, { recursive: true })
  const entries = new Set(Object.keys(library.entries).map((name) => `${name}.js`))
  const inOrder = [...files].sort(([left], [right]) => Number(entries.has(left)) - Number(entries.has(right)))
  for (const [name, text] of inOrder) place(name, text, 0o644, folder)
  for (const name of leftovers(folder, files)) rmSync(join(folder, name), { recursive: true, force: true })
  const size = [...files.values()].reduce((sum, text) => sum + text.length, 0)
  console.log(`dist${sep}${library.name}${sep}: ${kilobytes(size)} in ${files.size} files`)
  return modules
}

const packageFolder = (module: string): string | undefined =>
  module.match(/^.*[\\/]node_modules[\\/](?:@[^\\/]+[\\/])?[^\\/]+/)?.[0]

/** The licences of all packages that a bundle contains parts of. */
const licences = (modules: Iterable<string>): string => {
  const folders = new Set<string>()
  for (const module of modules) {
    const folder = packageFolder(module)
    if (folder !== undefined) folders.add(folder)
  }
  const texts = [...folders].sort().map((folder) => {
    const { name, version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"))
    const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry))
    const text = file === undefined ? `Licence: ${license}` : readFileSync(join(folder, file), "utf8").trim()
    return `${name} ${version}\n\n${text}\n`
  })
  return texts.join(`\n${"-".repeat(80)}\n\n`)
}

const kilobytes = (bytes: number) => `${Math.round(bytes / 1024)} kB`

const buildAll = async (): Promise<void> => {
  const { sourcesHash } = await import("./lib/build-stamp.mjs")
  const hash: string = sourcesHash()
  const modules = new Set<string>()
  mkdirSync(dist, { recursive: true })
  rmSync(join(dist, ".sources"), { force: true })
  for (const program of programs) {
    if (!existsSync(at(program.entry))) {
      if (MISSING_ENTRIES_ARE_ERRORS) throw new Error(`${program.entry} is missing`)
      console.log(`${program.name}: no ${program.entry} yet`)
      continue
    }
    const { modules: parts, text } = await bundle(root, program)
    for (const module of parts) modules.add(module)
    place(`${program.name}.js`, text, program.executable === true ? 0o755 : 0o644)
    console.log(
      `dist${sep}${program.name}.js: ${kilobytes(text.length)}, ${kilobytes(gzipSync(text).length)} gzipped`
    )
  }
  for (const library of libraries) {
    for (const module of await placeLibrary(library)) modules.add(module)
  }
  place("package.json", `${JSON.stringify({ type: "commonjs" })}\n`)
  place("THIRD-PARTY-LICENCES.txt", licences(modules))
  place(".sources", `${hash}\n`)
}

await buildAll()

import { execFileSync } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { isBuiltin } from "node:module"
import { tmpdir } from "node:os"
import { basename, join } from "node:path"
import { type Plugin, rolldown } from "rolldown"

/**
 * A library, as scripts/libraries.json lists them: a folder of dist/ with ES modules and their declarations. The first entry
 * carries all it needs in chunks that are loaded when they are wanted; later ones import it, and `effect` from outside.
 */
export interface Library {
  readonly name: string
  /** Modules by the name they are imported by. */
  readonly entries: Readonly<Record<string, string>>
}

/** Files of a library by name, and what they were made of. */
export interface BuiltLibrary {
  readonly files: ReadonlyMap<string, string>
  readonly modules: ReadonlyArray<string>
}

/** Leaves the other entries outside: they are files of the same folder. */
const besides = (root: string, entries: ReadonlyMap<string, string>, own: string): Plugin => ({
  name: "besides",
  resolveId: async function (specifier, importer) {
    const found = await this.resolve(specifier, importer, { skipSelf: true })
    const name = entries.get(found?.id ?? "")
    return name === undefined || found?.id === join(root, own)
      ? undefined
      : { id: `./${name}.js`, external: true }
  }
})

const compile = async (root: string, { entries }: Library, name: string, isFirst: boolean) => {
  const complaints: Array<string> = []
  const entry = entries[name] as string
  const names = new Map(Object.entries(entries).map(([key, path]) => [join(root, path), key]))
  const build = await rolldown({
    input: { [name]: join(root, entry) },
    platform: "node",
    tsconfig: false,
    external: isFirst ? [] : ["effect"],
    plugins: [besides(root, names, entry)],
    transform: { target: "node22.19", define: { "import.meta.env": "undefined" } },
    onLog: (level, log) => {
      if (level === "warn") complaints.push(log.message)
    }
  })
  try {
    const { output } = await build.generate({
      format: "esm",
      minify: true,
      chunkFileNames: "[name]-[hash].js",
      entryFileNames: "[name].js"
    })
    const own = new Set(output.map(({ fileName }) => fileName))
    const known = new Set([...own, ...names.values()].map((file) => file.replace(/(\.js)?$/, ".js")))
    for (const file of output) {
      if (file.type !== "chunk") throw new Error(`${entry}: ${file.fileName} is no module`)
      const foreign = [...file.imports, ...file.dynamicImports].filter(
        (from) => !isBuiltin(from) && !known.has(basename(from)) && (isFirst || from !== "effect")
      )
      if (foreign.length > 0) complaints.push(`imports that are not bundled: ${foreign.join(", ")}`)
    }
    if (complaints.length > 0) throw new Error(`${entry}:\n${complaints.join("\n")}`)
    return output.flatMap((file) => (file.type === "chunk" ? [file] : []))
  } finally {
    await build.close()
  }
}

/** Declarations of the entries and of what they name, with imports that hold where they are put. */
const declarations = (root: string, { entries }: Library): ReadonlyMap<string, string> => {
  const folder = mkdtempSync(join(tmpdir(), "postern-declarations-"))
  try {
    const compiler = join(root, "node_modules", "typescript", "bin", "tsc")
    const settings = JSON.parse(readFileSync(join(root, "tsconfig.json"), "utf8")).compilerOptions
    const flags = Object.entries<unknown>(settings)
      .filter(([key]) => !["noEmit", "plugins", "types", "lib"].includes(key))
      .flatMap(([key, value]) => [`--${key}`, String(value)])
    const emitted = [
      "--declaration",
      "--emitDeclarationOnly",
      "--outDir",
      folder,
      "--rootDir",
      join(root, "src")
    ]
    execFileSync(
      process.execPath,
      [
        compiler,
        ...flags,
        "--types",
        "node",
        "--ignoreConfig",
        ...emitted,
        ...Object.values(entries).map((path) => join(root, path))
      ],
      { stdio: "pipe" }
    )
    return readDeclarations(folder, entries)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** The entries' declarations, and those that they import, all in one folder. */
const readDeclarations = (folder: string, entries: Library["entries"]): ReadonlyMap<string, string> => {
  const files = new Map<string, string>()
  const named = new Map(Object.entries(entries).map(([name, path]) => [path.replace(/\.ts$/, ""), name]))
  const nameOf = (path: string) => named.get(`src/${path}`) ?? basename(path)
  const take = (path: string): void => {
    const name = `${nameOf(path)}.d.ts`
    if (files.has(name)) return
    const text = readFileSync(join(folder, `${path}.d.ts`), "utf8")
    files.set(name, "")
    const placed = text.replace(/(from\s+"|import\(")(\.[^"]*?)(?:\.ts)?"/g, (_all, before, specifier) => {
      const target = join(path, "..", specifier)
      take(target)
      return `${before}./${nameOf(target)}.js"`
    })
    files.set(name, placed)
  }
  for (const path of Object.values(entries)) take(path.replace(/^src\//, "").replace(/\.ts$/, ""))
  return files
}

/** Bundles a library into ES modules. Fails on anything that the bundler warns of. */
export const buildLibrary = async (root: string, library: Library): Promise<BuiltLibrary> => {
  const files = new Map(declarations(root, library))
  const modules: Array<string> = []
  for (const [index, name] of Object.keys(library.entries).entries()) {
    for (const { code, fileName, moduleIds } of await compile(root, library, name, index === 0)) {
      files.set(fileName, code)
      modules.push(...moduleIds)
    }
  }
  files.set("package.json", `${JSON.stringify({ type: "module" })}\n`)
  return { files, modules }
}

/** The files of a folder that a build did not make. */
export const leftovers = (folder: string, files: ReadonlyMap<string, string>): ReadonlyArray<string> =>
  readdirSync(folder).filter((name) => !files.has(name))

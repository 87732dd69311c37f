import { readFileSync } from "node:fs"
import { isBuiltin } from "node:module"
import { join } from "node:path"
import { rolldown } from "rolldown"

/** One program, as scripts/programs.json lists them. */
export interface Program {
  readonly name: string
  /** The module that starts it, from the root of the checkout. */
  readonly entry: string
  /** A module that is evaluated before; the rest is not even parsed where it exports `stays` as true. */
  readonly first?: string
  /** True where the file is a command: it then begins with a shebang and may be executed. */
  readonly executable?: boolean
}

/** A program in one file. */
export interface Bundle {
  readonly text: string
  /** The files that it was made of. */
  readonly modules: ReadonlyArray<string>
}

const prologuePath = join(import.meta.dirname, "..", "prologue.cjs")

/** The program as one CommonJS text without imports other than Node's own modules. */
const compile = async (entry: string) => {
  const complaints: Array<string> = []
  const build = await rolldown({
    input: entry,
    platform: "node",
    tsconfig: false,
    // Effect asks other bundlers for their environment; here there is none.
    transform: { target: "node22.19", define: { "import.meta.env": "undefined" } },
    onLog: (level, log) => {
      if (level === "warn") complaints.push(log.message)
    }
  })
  try {
    const { output } = await build.generate({
      format: "cjs",
      strict: true,
      minify: true,
      codeSplitting: false
    })
    const [chunk] = output
    if (output.length !== 1) complaints.push(`${output.length} files instead of one`)
    const foreign = [...chunk.imports, ...chunk.dynamicImports].filter((name) => !isBuiltin(name))
    if (foreign.length > 0) complaints.push(`imports that are not bundled: ${foreign.join(", ")}`)
    if (complaints.length > 0) throw new Error(`${entry}:\n${complaints.join("\n")}`)
    return chunk
  } finally {
    await build.close()
  }
}

/** The first lines, then the program as a string that they compile, behind the part that may make it needless. */
const withPrologue = (program: Program, code: string, first: string | undefined): string => {
  const run = (text: string) => `self._compile(${JSON.stringify(text)}, self.filename)`
  const start = first === undefined ? run(code) : `${run(first)}\nif (!self.exports.stays) ${run(code)}`
  const prologue = readFileSync(prologuePath, "utf8")
    .split("\n")
    .filter((line) => !line.startsWith("//"))
    .join("\n")
    .replace("__NAME__", `postern ${program.name}`)
    .replace("__START__", () => start)
  return `${program.executable === true ? "#!/usr/bin/env node\n" : ""}${prologue}`
}

/** Bundles a program into the text of one file that runs alone. Fails on anything that the bundler warns of. */
export const bundle = async (root: string, program: Program): Promise<Bundle> => {
  const chunk = await compile(join(root, program.entry))
  const first = program.first === undefined ? undefined : await compile(join(root, program.first))
  return {
    text: withPrologue(program, chunk.code, first?.code),
    modules: [...new Set([...chunk.moduleIds, ...(first?.moduleIds ?? [])])]
  }
}

import { readFileSync } from "node:fs"
import { isBuiltin } from "node:module"
import { join } from "node:path"
import { brotliCompressSync } from "node:zlib"
import { rolldown } from "rolldown"

/** One program, as scripts/programs.json lists them. */
export interface Program {
  readonly name: string
  /** The module that starts it, from the root of the checkout. */
  readonly entry: string
  /** A module that is evaluated before; the rest is not even parsed where it exports `stays` as true. */
  readonly first?: string
  /** A module that is evaluated in worker threads; again the rest is not parsed where it exports `stays` as true. */
  readonly thread?: string
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
    // What is imported lazily stands in the same file, which is then named as an import of itself.
    const foreign = [...chunk.imports, ...chunk.dynamicImports].filter(
      (name) => !isBuiltin(name) && name !== chunk.fileName
    )
    if (foreign.length > 0) complaints.push(`imports that are not bundled: ${foreign.join(", ")}`)
    if (complaints.length > 0) throw new Error(`${entry}:\n${complaints.join("\n")}`)
    return chunk
  } finally {
    await build.close()
  }
}

/**
 * Code in ASCII alone, since V8 holds a text with any other character in two bytes for each. What is not ASCII stands in
 * texts and patterns, where an escape means the same.
 */
const ascii = (code: string): string => {
  if (/\\[^\0-\x7f]/.test(code)) throw new Error("a character that is not ASCII stands behind a backslash")
  return code.replace(
    /[^\0-\x7f]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`
  )
}

interface Parts {
  readonly main: string
  readonly first?: string
  readonly thread?: string
}

const compressed = (code: string): string => brotliCompressSync(ascii(code)).toString("base64")

/**
 * The first lines, then what they compile: the small part that may make the rest needless as a string, the others as
 * comments, one line each, which are read from the file where they are wanted. Every process and every thread holds the
 * whole file for as long as it lives, so these comments are compressed.
 */
const withPrologue = (program: Program, { first, main, thread }: Parts): string => {
  const unless = "if (!self.exports.stays) "
  const start = [
    ...(first === undefined ? [] : [`self._compile(${JSON.stringify(ascii(first))}, self.filename)`]),
    ...(thread === undefined ? [] : [`${unless}if (!isMainThread()) run("thread")`]),
    `${unless}run("main")`,
    ...(thread === undefined ? [] : [`//thread ${compressed(thread)}`]),
    `//main ${compressed(main)}`
  ].join("\n")
  const prologue = readFileSync(prologuePath, "utf8")
    .split("\n")
    .filter((line) => !line.startsWith("// "))
    .join("\n")
    .replace("__NAME__", `postern ${program.name}`)
    .replace("__START__", () => start)
  return `${program.executable === true ? "#!/usr/bin/env node\n" : ""}${prologue}`
}

/** Bundles a program into the text of one file that runs alone. Fails on anything that the bundler warns of. */
export const bundle = async (root: string, program: Program): Promise<Bundle> => {
  const part = async (entry: string | undefined) =>
    entry === undefined ? undefined : await compile(join(root, entry))
  const main = await compile(join(root, program.entry))
  const [first, thread] = [await part(program.first), await part(program.thread)]
  const parts = {
    main: main.code,
    ...(first === undefined ? {} : { first: first.code }),
    ...(thread === undefined ? {} : { thread: thread.code })
  }
  return {
    text: withPrologue(program, parts),
    modules: [...new Set([main, first, thread].flatMap((chunk) => chunk?.moduleIds ?? []))]
  }
}

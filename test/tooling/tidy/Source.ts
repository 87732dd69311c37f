import { parseSync } from "rolldown/utils"

/** One node of a syntax tree, as far as the rules look at it. */
export interface Node {
  readonly type: string
  readonly start: number
  readonly end: number
  readonly [member: string]: unknown
}

/** A parsed source file. */
export interface Source {
  readonly path: string
  readonly text: string
  readonly program: Node
  readonly comments: ReadonlyArray<{ readonly value: string; readonly start: number }>
  readonly imports: ReadonlyArray<Import>
  /** The names that it exports. */
  readonly exports: ReadonlyArray<string>
  /** The line, from 1, at which an offset lies. */
  readonly lineOf: (offset: number) => number
}

/** An import, a re-export or a dynamic import of a literal path. */
export interface Import {
  readonly specifier: string
  readonly start: number
  /** True when nothing but types comes of it. */
  readonly isType: boolean
}

/** One breach of one rule. */
export interface Finding {
  readonly path: string
  readonly line: number
  readonly rule: string
  readonly message: string
}

const isNode = (value: unknown): value is Node =>
  typeof value === "object" && value !== null && typeof (value as Node).type === "string"

/** Visits a node and everything below it, parents first. */
export const walk = (node: Node, visit: (node: Node) => void): void => {
  visit(node)
  for (const value of Object.values(node)) {
    for (const child of Array.isArray(value) ? value : [value]) if (isNode(child)) walk(child, visit)
  }
}

/** The dotted name that an expression spells, or undefined: `Effect.die`, `it.effect.prop`, `expect`. */
export const dottedName = (node: unknown): string | undefined => {
  if (!isNode(node)) return undefined
  if (node.type === "Identifier") return String(node["name"])
  if (node.type === "CallExpression") return dottedName(node["callee"])
  if (node.type !== "MemberExpression" || node["computed"] === true) return undefined
  const object = dottedName(node["object"])
  return object === undefined ? undefined : `${object}.${dottedName(node["property"])}`
}

/** Parses one file. Throws where it is no TypeScript or JavaScript. */
export const parse = (path: string, text: string): Source => {
  const { comments, errors, module, program } = parseSync(path, text)
  if (errors.length > 0) throw new SyntaxError(`${path}: ${errors[0]?.message}`)
  const lineStarts = [0]
  for (let at = text.indexOf("\n"); at !== -1; at = text.indexOf("\n", at + 1)) lineStarts.push(at + 1)
  const statics = module.staticImports.map((found) => ({
    specifier: found.moduleRequest.value,
    start: found.start,
    isType: found.entries.length > 0 && found.entries.every((entry) => entry.isType)
  }))
  const reexports = module.staticExports.flatMap((found) =>
    found.entries
      .filter((entry) => entry.moduleRequest != null)
      .map((entry) => ({
        specifier: String(entry.moduleRequest?.value),
        start: found.start,
        isType: entry.isType
      }))
  )
  const dynamics = module.dynamicImports.map((found) => ({
    specifier: text.slice(found.moduleRequest.start + 1, found.moduleRequest.end - 1),
    start: found.start,
    isType: false
  }))
  return {
    path,
    text,
    program: program as unknown as Node,
    comments,
    imports: [...statics, ...reexports, ...dynamics],
    exports: module.staticExports.flatMap((found) =>
      found.entries.map((entry) => String(entry.exportName.name))
    ),
    lineOf: (offset) => lineStarts.findLastIndex((start) => start <= offset) + 1
  }
}

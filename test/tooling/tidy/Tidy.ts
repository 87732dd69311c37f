import { readdirSync, readFileSync } from "node:fs"
import { join, relative, sep } from "node:path"
import { type Finding, parse } from "./Source.ts"
import { sourceRules } from "./SourceRules.ts"
import { orphans, type Tree, treeRules } from "./TreeRules.ts"

const LEFT_OUT = new Set([".git", "node_modules", "dist", ".cache", "coverage"])
const TEXT = /\.(ts|mts|mjs|cjs|js|json|md|css|html|ya?ml|toml|sh|service|rules|ino)$|\/run$|^\.\w+$|LICENSE$/

/** Reads every text file of a checkout, with `/` in the paths. */
export const readTree = (root: string): Tree => {
  const tree = new Map<string, string>()
  const visit = (folder: string): void => {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      if (LEFT_OUT.has(entry.name)) continue
      const path = join(folder, entry.name)
      const name = relative(root, path).split(sep).join("/")
      if (entry.isDirectory()) visit(path)
      else if (entry.isFile() && TEXT.test(name)) tree.set(name, readFileSync(path, "utf8"))
    }
  }
  visit(root)
  return tree
}

const isSource = (path: string): boolean => /^(src|test|bench|scripts|web)\/.*\.(ts|mts|mjs)$/.test(path)

/** All breaches of all rules in a checkout, given its files and the entries of its programs. */
export const tidy = (tree: Tree, entries: ReadonlyArray<string>): ReadonlyArray<Finding> => {
  const sources = [...tree].filter(([path]) => isSource(path)).map(([path, text]) => parse(path, text))
  return [
    ...sources.flatMap((source) => sourceRules.flatMap((rule) => rule(source))),
    ...treeRules.flatMap((rule) => rule(tree)),
    ...orphans(tree, sources, entries)
  ]
}

/** A finding on one line, as compilers print theirs. */
export const render = ({ path, line, rule, message }: Finding): string =>
  `${path}:${line}: ${rule}: ${message}`

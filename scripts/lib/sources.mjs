// Hashes over files, to tell whether a step must be repeated.

import { createHash } from "node:crypto"
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs"
import { join, relative } from "node:path"
import { root } from "./paths.mjs"

/** All plain files at or below the given paths, sorted, relative to the root. Missing paths are left out. */
export const filesBelow = (paths) => {
  const found = []
  const walk = (path) => {
    if (!existsSync(path)) return
    if (statSync(path).isFile()) {
      found.push(relative(root, path))
      return
    }
    for (const entry of readdirSync(path, { withFileTypes: true })) {
      if (entry.name === "node_modules") continue
      if (entry.isDirectory() || entry.isFile()) walk(join(path, entry.name))
    }
  }
  for (const path of paths) walk(join(root, path))
  return found.sort()
}

/** SHA-256 over names and contents of all files below the paths, and over any further words. */
export const hashOf = (paths, ...words) => {
  const hash = createHash("sha256")
  for (const file of filesBelow(paths)) {
    const bytes = readFileSync(join(root, file))
    hash.update(`${file}\0${bytes.length}\0`).update(bytes)
  }
  for (const word of words) hash.update(`\0${word}`)
  return hash.digest("hex")
}

// Whether dist/ stems from the sources as they are.

import { existsSync, readFileSync } from "node:fs"
import { at } from "./paths.mjs"
import { hashOf } from "./sources.mjs"

/** Everything that can change a bundle. */
const INPUTS = [
  "src",
  "scripts/build.ts",
  "scripts/lib/bundle.ts",
  "scripts/lib/library.ts",
  "scripts/prologue.cjs",
  "scripts/programs.json",
  "scripts/libraries.json",
  "package.json",
  "package-lock.json",
  "tsconfig.json"
]

/** The stamp lies in dist/ itself, so that it goes when dist/ goes. */
export const buildStampPath = at("dist", ".sources")

/** The hash of the present sources. */
export const sourcesHash = () => hashOf(INPUTS)

const listed = (name) => JSON.parse(readFileSync(at("scripts", name), "utf8"))

/** The files that a build makes: of a library those that are imported by name. */
const outputs = () => [
  ...listed("programs.json")
    .filter((program) => existsSync(at(program.entry)))
    .map((program) => at("dist", `${program.name}.js`)),
  ...listed("libraries.json").flatMap((library) =>
    Object.keys(library.entries).map((entry) => at("dist", library.name, `${entry}.js`))
  )
]

/** True when every library, and every program whose entry exists, was built from the present sources. */
export const buildIsFresh = () => {
  if (!existsSync(buildStampPath)) return false
  if (outputs().some((path) => !existsSync(path))) return false
  return readFileSync(buildStampPath, "utf8").trim() === sourcesHash()
}

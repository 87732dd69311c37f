// Whether dist/ stems from the sources as they are.

import { existsSync, readFileSync } from "node:fs"
import { at } from "./paths.mjs"
import { hashOf } from "./sources.mjs"

/** Everything that can change a bundle. */
const INPUTS = [
  "src",
  "scripts/build.ts",
  "scripts/lib/bundle.ts",
  "scripts/prologue.cjs",
  "scripts/programs.json",
  "package.json",
  "package-lock.json",
  "tsconfig.json"
]

/** The stamp lies in dist/ itself, so that it goes when dist/ goes. */
export const buildStampPath = at("dist", ".sources")

/** The hash of the present sources. */
export const sourcesHash = () => hashOf(INPUTS)

const programs = () => JSON.parse(readFileSync(at("scripts", "programs.json"), "utf8"))

/** True when every program whose entry exists was bundled from the present sources. */
export const buildIsFresh = () => {
  if (!existsSync(buildStampPath)) return false
  const outputs = programs().filter((program) => existsSync(at(program.entry)))
  if (outputs.some((program) => !existsSync(at("dist", `${program.name}.js`)))) return false
  return readFileSync(buildStampPath, "utf8").trim() === sourcesHash()
}

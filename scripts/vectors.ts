// Writes test/vectors anew, after the wire of messaging has changed.

import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { NobleEngine } from "../src/crypto/NobleEngine.ts"
import { vectorFiles, vectorText } from "./lib/messaging-vector-files.ts"

const folder = join(import.meta.dirname, "../test/vectors")
mkdirSync(folder, { recursive: true })
for (const [name, content] of Object.entries(vectorFiles(NobleEngine)))
  writeFileSync(join(folder, name), vectorText(content))

// Writes docs/configuration.md anew, after a setting was added or changed.

import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { configurationPage } from "./lib/configuration-page.ts"

writeFileSync(join(import.meta.dirname, "../docs/configuration.md"), configurationPage())

// Where things lie in this checkout.

import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

/** The root of the checkout. */
export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))

/** A path below the root. */
export const at = (...parts) => join(root, ...parts)

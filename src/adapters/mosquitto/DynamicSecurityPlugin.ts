/** Where this machine has Mosquitto's dynamic security plugin. */
import { existsSync, readdirSync } from "node:fs"
import { join } from "node:path"

const file = "mosquitto_dynamic_security.so"
/** Debian's folders are named after the machine; others have one for all. */
const folders = ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64"]

const below = (folder: string): ReadonlyArray<string> => {
  try {
    const inner = readdirSync(folder, { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && entry.name.includes("-linux-"))
      .map(({ name }) => join(folder, name))
    return [...inner, folder]
  } catch {
    return []
  }
}

/** Its path; undefined where there is none. */
export const findPlugin = (): string | undefined =>
  folders
    .flatMap(below)
    .map((folder) => join(folder, file))
    .find((path) => existsSync(path))

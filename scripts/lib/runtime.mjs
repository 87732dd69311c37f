// Which Node runs the tasks: the one among the dependencies, else the system's if it is new enough.

import { existsSync } from "node:fs"
import { delimiter, dirname } from "node:path"
import { runQuiet } from "./exec.mjs"
import { at } from "./paths.mjs"
import { StepFailed } from "./say.mjs"

const OLDEST = [22, 19]

const isNewEnough = (version) => {
  const [major, minor] = version.split(".").map(Number)
  return major > OLDEST[0] || (major === OLDEST[0] && minor >= OLDEST[1])
}

const bundledNode = async () => {
  const path = at("node_modules", `node-${process.platform}-${process.arch}`, "bin", "node")
  if (!existsSync(path)) return undefined
  const { code, output } = await runQuiet(path, ["--version"])
  return code === 0 ? { path, version: output.trim().slice(1) } : undefined
}

/** The path and version of the Node that tasks run with. Fails with one clear line when there is none. */
export const chooseNode = async () => {
  const bundled = await bundledNode()
  if (bundled !== undefined) return bundled
  if (isNewEnough(process.versions.node)) return { path: process.execPath, version: process.versions.node }
  throw new StepFailed(
    `Node ${process.versions.node} is too old, and there is none among the dependencies for ` +
      `${process.platform}-${process.arch}. Install Node ${OLDEST.join(".")} or newer.`,
    78
  )
}

/** The environment for tasks: that Node and the installed commands come first on PATH. */
export const environmentFor = (node) => ({
  ...process.env,
  PATH: [dirname(node.path), at("node_modules", ".bin"), process.env.PATH ?? ""].join(delimiter)
})

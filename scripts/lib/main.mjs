// Set-up, then the task: dependencies, a Node new enough, system parts, the build.

import { at } from "./paths.mjs"
import { chooseNode, environmentFor } from "./runtime.mjs"
import { StepFailed, say } from "./say.mjs"
import { ensureDependencies } from "./setup.mjs"
import { ensureSystemParts } from "./system.mjs"
import { ensureBuilt, tasks } from "./tasks.mjs"

const usage = () => {
  const width = Math.max(...Object.keys(tasks).map((name) => name.length))
  const lines = Object.entries(tasks).map(([name, task]) => `  ${name.padEnd(width)}  ${task.about}`)
  return `usage: node scripts/run.mjs TASK [ARGUMENTS…]\n\n${lines.join("\n")}\n`
}

const perform = async (name, args, calledFrom) => {
  const task = tasks[name]
  await ensureDependencies()
  const node = await chooseNode()
  const context = { node, env: environmentFor(node), calledFrom }
  if (task.parts) await ensureSystemParts(name, args)
  if (task.built) await ensureBuilt(context)
  return task.run(context, args)
}

/** Runs one task and exits with its code. */
export const main = async (name, args) => {
  if (name === undefined || !Object.hasOwn(tasks, name)) {
    process.stderr.write(usage())
    process.exit(name === "--help" ? 0 : 2)
  }
  // npm starts us in the root, and says in INIT_CWD where it was called; files named on the command line lie there.
  const calledFrom = process.env.INIT_CWD ?? process.cwd()
  process.chdir(at())
  try {
    process.exitCode = await perform(name, args, calledFrom)
  } catch (error) {
    if (!(error instanceof StepFailed)) throw error
    say(error.message)
    process.exitCode = error.exitCode
  }
}

// Parts of the operating system that the tests and the demo use: found, installed where that is allowed, named.

import { accessSync, constants, existsSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { delimiter, join } from "node:path"
import { runQuiet } from "./exec.mjs"
import { at } from "./paths.mjs"
import { say, step } from "./say.mjs"

const FURTHER_FOLDERS = ["/usr/sbin", "/sbin"]

/** The parts, as `scripts/system-packages.json` lists them. */
export const systemParts = () => JSON.parse(readFileSync(at("scripts", "system-packages.json"), "utf8"))

/** Whether a command can be found on PATH or in the folders of system commands. */
export const hasCommand = (command) =>
  [...(process.env.PATH ?? "").split(delimiter), ...FURTHER_FOLDERS].some((folder) => {
    if (folder === "") return false
    try {
      accessSync(join(folder, command), constants.X_OK)
      return true
    } catch {
      return false
    }
  })

/** Whether a part is there: a command, or what holds a library in place of one. */
export const hasPart = ({ command, file }) => (file === undefined ? hasCommand(command) : existsSync(file))

/** What a call needs: a part is for a task as a whole (`demo`), or for an option of it (`demo --tor`). */
const missingParts = (task, args) => {
  const calls = [task, ...args.map((argument) => `${task} ${argument}`)]
  return systemParts().filter((part) => calls.some((call) => part.tasks.includes(call)) && !hasPart(part))
}

const whyNotInstalled = () => {
  if (process.env.POSTERN_NO_APT === "1") return "POSTERN_NO_APT=1 forbids installing"
  if (process.getuid?.() !== 0) return "installing needs root"
  if (!hasCommand("apt-get")) return "there is no apt-get here"
  return undefined
}

/** What Debian's packages ask before they start a service: 101 says no. */
const servicePolicy = "/usr/sbin/policy-rc.d"

/** Keeps packages from starting services of their own (tor's would join the real network) while `work` is done. */
const withoutServices = async (work) => {
  let isOurs = false
  try {
    writeFileSync(servicePolicy, "#!/bin/sh\nexit 101\n", { mode: 0o755, flag: "wx" })
    isOurs = true
  } catch (error) {
    // The machine has a policy of its own: it stands.
    if (error.code !== "EEXIST") throw error
  }
  try {
    return await work()
  } finally {
    if (isOurs) rmSync(servicePolicy, { force: true })
  }
}

const aptInstall = async (packages) => {
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" }
  const install = ["install", "-y", "--no-install-recommends", ...packages]
  const first = await runQuiet("apt-get", install, { env })
  if (first.code === 0) return
  const update = await runQuiet("apt-get", ["update"], { env })
  const second = update.code === 0 ? await runQuiet("apt-get", install, { env }) : update
  if (second.code !== 0) throw new Error(second.output.trimEnd().split("\n").slice(-3).join("\n"))
}

/**
 * Installs missing parts with apt where we are root and may; else names each with what it would be good for.
 * Never fails: a test that needs a missing part says so itself, and fails in CI.
 */
export const ensureSystemParts = async (task, args = []) => {
  const missing = missingParts(task, args)
  if (missing.length === 0) return
  const obstacle = whyNotInstalled()
  if (obstacle === undefined) {
    const packages = [...new Set(missing.map((part) => part.package))]
    try {
      await step(`installing system packages with apt: ${packages.join(", ")}`, () =>
        withoutServices(() => aptInstall(packages))
      )
      return
    } catch (error) {
      say(`apt-get could not install them: ${error.message}`)
    }
  }
  for (const part of missingParts(task, args)) {
    say(`missing: ${part.command} (package ${part.package}): ${part.reason}`)
  }
  if (obstacle !== undefined) say(`not installed, because ${obstacle}`)
}

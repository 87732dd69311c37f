/**
 * The first part of `client.js`, evaluated before the rest of the file is even parsed: it becomes the warden where the
 * process is to be one, and tells the version where nothing else is asked for; then nothing else is loaded. `stays` tells
 * the prologue so.
 *
 * @module
 */
import { isMainThread } from "node:worker_threads"
import { asksVersion, clientFlags, isWarden } from "../adapters/warden/Role.ts"
import { runWarden } from "../adapters/warden/Warden.ts"
import { version } from "../schemas/Version.ts"

const [node, file, ...args] = process.argv as [string, string, ...Array<string>]

const tellsVersion = isMainThread && asksVersion(args)
const becomesWarden = isWarden(args, process.env)

export const stays = tellsVersion || becomesWarden

if (tellsVersion) {
  // A reader that went away is no fault; anything else, such as a full disk, is.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE")
      process.stderr.write(`postern: Could not write the output: ${error.message}\n`)
    process.exitCode = error.code === "EPIPE" ? 130 : 1
  })
  process.stdout.write(`client.js ${version}\n`)
}

if (becomesWarden)
  runWarden({
    command: [node, ...clientFlags, ...process.execArgv, file, ...args],
    environment: process.env
  })

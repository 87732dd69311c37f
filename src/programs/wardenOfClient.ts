/**
 * The first part of `client.js`, evaluated before the rest of the file is even parsed: it becomes the warden where the
 * process is to be one, and then nothing else is loaded. `stays` tells the prologue so.
 *
 * @module
 */
import { clientFlags, isWarden } from "../adapters/warden/Role.ts"
import { runWarden } from "../adapters/warden/Warden.ts"

const [node, file, ...args] = process.argv as [string, string, ...Array<string>]

export const stays = isWarden(args, process.env)

if (stays)
  runWarden({
    command: [node, ...clientFlags, ...process.execArgv, file, ...args],
    environment: process.env
  })

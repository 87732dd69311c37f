/**
 * The client's configuration file: where it is looked for, and how the first start makes it. It is made with every key
 * explained and commented out, so it changes nothing until somebody edits it, and it is never written again.
 */
import { chmodSync, lstatSync } from "node:fs"
import { homedir } from "node:os"
import { dirname, join, resolve } from "node:path"
import { Option } from "effect"
import { createPrivateFile, errorCode, errorText, makeFolders } from "../../adapters/files/AtomicFile.ts"
import { utf8 } from "../../crypto/Bytes.ts"
import { ClientConfig } from "../../schemas/ClientConfig.ts"
import { commentedToml } from "../../schemas/SettingText.ts"
import type { ClientArguments } from "./ClientSettings.ts"

const heading =
  "The configuration of this Postern client, made at its first start. Every key is commented out and shows its default or an example; docs/configuration.md explains them. This file is never overwritten."

const nonEmpty = (value: string | undefined): string | undefined => (value === "" ? undefined : value)

/** The file named by flag or environment. */
const namedFile = (args: Pick<ClientArguments, "config">, env: NodeJS.ProcessEnv): string | undefined =>
  Option.getOrUndefined(args.config) ?? nonEmpty(env["POSTERN_CONFIG"])

/**
 * Where the file lies when nobody names one: with the system's configuration for root, with the user's for others; and
 * beside the state folder where that one is named, so that devices on one machine do not share it. Never in the state
 * folder: what may write there must not be able to change its own bounds.
 */
export const defaultConfigFile = (args: Pick<ClientArguments, "state">, env: NodeJS.ProcessEnv): string => {
  const state =
    Option.getOrUndefined(args.state) ??
    nonEmpty(env["POSTERN_STATE"]) ??
    nonEmpty(env["POSTERN_STATE_FOLDER"])
  if (state !== undefined) return `${resolve(state)}.toml`
  return process.geteuid?.() === 0
    ? "/etc/postern/client.toml"
    : join(env["XDG_CONFIG_HOME"] || join(homedir(), ".config"), "postern", "client.toml")
}

/**
 * The file to read: the named one, else the default one where it is there.
 *
 * @throws Error when the default one can be written by others, who could change what packages may reach
 */
export const configFile = (
  args: Pick<ClientArguments, "config" | "state">,
  env: NodeJS.ProcessEnv
): string | undefined => {
  const named = namedFile(args, env)
  if (named !== undefined) return named
  const path = defaultConfigFile(args, env)
  const found = lstatSync(path, { throwIfNoEntry: false })
  if (found === undefined) return undefined
  const isOwn = found.uid === 0 || found.uid === process.geteuid?.()
  if (!found.isFile() || !isOwn || (found.mode & 0o022) !== 0)
    throw new Error(
      `${path}: it is no plain file that root or this user alone can write: mend that, or name another with --config`
    )
  return path
}

/** What became of the file at this start. */
export type ConfigurationMade =
  | { readonly _tag: "Made"; readonly path: string }
  | { readonly _tag: "Kept" }
  | { readonly _tag: "Failed"; readonly path: string; readonly reason: string }

/** Makes the file where there is none and its place can be written. */
export const makeConfiguration = (
  args: Pick<ClientArguments, "config" | "state">,
  env: NodeJS.ProcessEnv
): ConfigurationMade => {
  const path = namedFile(args, env) ?? defaultConfigFile(args, env)
  try {
    if (lstatSync(path, { throwIfNoEntry: false }) !== undefined) return { _tag: "Kept" }
    // Open to readers: there are no secrets in it, and the part of the client that has no privileges reads it too.
    makeFolders(dirname(path), 0o755)
    createPrivateFile(path, utf8(commentedToml(ClientConfig, heading)))
    chmodSync(path, 0o644)
    return { _tag: "Made", path }
  } catch (error) {
    // Another start was quicker.
    if (errorCode(error) === "EEXIST") return { _tag: "Kept" }
    return { _tag: "Failed", path, reason: errorText(error) }
  }
}

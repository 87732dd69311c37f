/**
 * What a client that a warden started does first: says what its configuration allows, and gives up root. After this the
 * process has no more rights than its user, whatever is done to it.
 */
import { readFileSync } from "node:fs"
import { resolve } from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"
import { Effect, Layer } from "effect"
import { BubblewrapJail } from "../../adapters/BubblewrapJail.ts"
import { SystemdNotify } from "../../adapters/SystemdNotify.ts"
import type { Policy } from "../../adapters/warden/Messages.ts"
import {
  clientUser,
  dropTo,
  handOverState,
  programFor,
  requireReach
} from "../../adapters/warden/Privileges.ts"
import { hasWarden, WardenLink } from "../../adapters/warden/WardenLink.ts"
import type { Jail } from "../../ports/Jail.ts"
import type { ServiceManager } from "../../ports/ServiceManager.ts"
import type { ClientConfig } from "../../schemas/ClientConfig.ts"
import { type ClientSettings, misconfigured } from "./ClientSettings.ts"

/** What is done for the client by others: jobs, and word to whoever started it. */
export type Surroundings = Layer.Layer<Jail | ServiceManager>

/** Without a warden, as in tests: jobs are started by this process. */
export const alone = ({ config }: ClientSettings): Surroundings =>
  Layer.merge(
    BubblewrapJail.layer({
      bwrap: config.bwrap,
      uidBase: config.jail_uid_base,
      devices: config.devices,
      readOnly: config.grants.read_only,
      privatePaths: privatePaths(config)
    }),
    SystemdNotify(process.env)
  )

/** Keys and state. */
const privatePaths = (config: ClientConfig): ReadonlyArray<string> => [resolve(config.state_folder)]

const policyOf = (settings: ClientSettings, clientUid: number | null): Policy => {
  const { config } = settings
  return {
    bwrap: config.bwrap,
    uid_base: clientUid === null ? null : config.jail_uid_base,
    client_uid: clientUid,
    devices: Object.fromEntries(
      Object.entries(config.devices).filter(([name]) => config.grants.devices.includes(name))
    ),
    read_only: config.grants.read_only,
    private_paths: privatePaths(config),
    hung_after_ms: config.hung_after_ms,
    respawn: !settings.once
  }
}

const asMisconfigured = (error: unknown) =>
  misconfigured(error instanceof Error ? error.message : String(error))

/** As root: the state becomes the client's, the policy is said, and root is given up. */
const giveUpRoot = (settings: ClientSettings, entry: URL) =>
  Effect.gen(function* () {
    const { config } = settings
    const user = yield* Effect.try({
      try: () => clientUser(config.user, config.client_uid),
      catch: asMisconfigured
    })
    const takenOver = yield* Effect.try({
      try: () => handOverState(config.state_folder, user),
      catch: asMisconfigured
    })
    if (takenOver)
      yield* Effect.logInfo(`the state in ${config.state_folder} was root's and is ${user.shown}'s now`)
    const { host, link } = yield* WardenLink.open(policyOf(settings, user.uid))
    const reached = yield* Effect.try({
      try: () => {
        const program = fileURLToPath(entry)
        const source = readFileSync(program)
        dropTo(user)
        requireReach(user, config.state_folder)
        return pathToFileURL(programFor(program, source, config.state_folder))
      },
      catch: asMisconfigured
    })
    return { host, link, entry: reached }
  })

/**
 * Finds out who does what for this process, and from which file its threads start; gives up root where it has it. Fails
 * with what to mend where root cannot be given up.
 */
export const settleUnderWarden = (settings: ClientSettings, entry: URL) =>
  Effect.gen(function* () {
    if (!hasWarden(process.env)) return { surroundings: alone(settings), entry }
    const {
      host,
      link,
      entry: reached
    } = yield* process.getuid?.() === 0
      ? giveUpRoot(settings, entry)
      : Effect.map(WardenLink.open(policyOf(settings, null)), (opened) => ({ ...opened, entry }))
    const jail = BubblewrapJail.hosted(host, { bwrap: settings.config.bwrap })
    return { surroundings: Layer.merge(jail, link.serviceManager) as Surroundings, entry: reached }
  })

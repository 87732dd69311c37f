/** The server over Tor: its doors, its keeper and its port to tor, put together from the settings. */
import { join } from "node:path"
import { Effect } from "effect"
import { onionKeeper } from "../../actors/OnionKeeper.ts"
import { OnionKeeperKey } from "../../actors/ServerKeys.ts"
import type { ListenAt } from "../../adapters/http/Listening.ts"
import { onionHosts, onionPaths, servicesOf, TorOnionServices } from "../../adapters/tor/TorOnionServices.ts"
import { ChildSpec } from "../../kernel/index.ts"
import { OnionServices } from "../../ports/OnionServices.ts"
import type { OnionServiceName } from "../../schemas/OnionStatus.ts"
import type { ServerConfig } from "../../schemas/ServerConfig.ts"
import { type DoorOptions, onionDoor } from "../serverDoors.ts"
import { prepareState } from "./ServerState.ts"

/** tor has its own time to stop. */
const keeperShutdownMs = 4_000

/**
 * Where a door listens. A tor of our own reaches sockets in a folder that only this user enters; one that runs already,
 * as another user, needs ports on loopback.
 */
const placeOf = ({ onion, state_folder }: ServerConfig, service: OnionServiceName): ListenAt =>
  onion.control === null
    ? { path: join(onionPaths(state_folder).doors, `${service}.sock`) }
    : { host: "127.0.0.1", port: 0 }

/** The hosts that the server has over Tor; null where it is not reached so. */
export const hostsIfEnabled = ({ onion }: Pick<ServerConfig, "onion">) =>
  onion.enabled ? onionHosts : Effect.succeed(null)

/** Keeps where the doors are open, for tor to be told. */
export class OnionDoors {
  private readonly open = new Map<OnionServiceName, string>()
  readonly opened = (service: OnionServiceName, address: string): void => void this.open.set(service, address)
  readonly place = (service: OnionServiceName): string | null => this.open.get(service) ?? null
}

/** The port to tor. */
export const OnionServicesOf = (config: ServerConfig, doors: OnionDoors) =>
  TorOnionServices({ stateFolder: config.state_folder, settings: config.onion, door: doors.place })

/** The server over Tor, where the settings want that; its folder is made, or checked to be private. */
export const onionReach = (config: ServerConfig, open: OnionDoors) =>
  Effect.gen(function* () {
    const hosts = yield* hostsIfEnabled(config)
    if (hosts === null) return null
    yield* prepareState(onionPaths(config.state_folder).doors)
    const { closed } = yield* OnionServices
    return {
      hosts,
      closed,
      /** The children of the tree, in start order. */
      children: (doors: DoorOptions) => [
        ...servicesOf(config.onion).map((service) =>
          onionDoor(doors, {
            service,
            hosts,
            at: placeOf(config, service),
            listening: (address) => Effect.sync(() => open.opened(service, address))
          })
        ),
        ChildSpec.make({
          key: OnionKeeperKey,
          shutdownMs: keeperShutdownMs,
          behaviour: onionKeeper(config.onion)
        })
      ]
    }
  })

/**
 * The device's tree, on one screen. Children stand in start order and stop in the reverse one.
 *
 *     client                      rest-for-one
 *     ├─ observers                optional: it sees and tells, whatever becomes of the others
 *     │  ├─ tunnel-keeper         keeps the way through Tor open, where one is needed; last down, since others use it
 *     │  ├─ historian             writes the device's own history
 *     │  ├─ connectivity          knows which layer of the network is broken
 *     │  └─ health-loop           looks at the machine, and reports
 *     ├─ vital                    one-for-one: gives up after too many crashes, and the program is respawned
 *     │  ├─ watchdog              hears the loops' heartbeats
 *     │  ├─ notary                continues the chain of receipts
 *     │  ├─ jail-guard            knows whether there is a safe jail
 *     │  ├─ trust-keeper          root, enrolment, operators' decisions
 *     │  ├─ outbox                sends what waits, oldest first
 *     │  ├─ lane-job              one order after the other
 *     │  ├─ lane-service          short requests, also while a job runs
 *     │  └─ main-loop             polls, and hands orders to the lanes
 *     └─ extras                   optional, last up and first down: agent, its socket, the control socket
 */

import {
  ConnectivityKey,
  HealthLoopKey,
  HistorianKey,
  JailGuardKey,
  LaneKeys,
  MainLoopKey,
  NotaryKey,
  OutboxKey,
  TrustKeeperKey,
  TunnelKeeperKey,
  WatchdogKey
} from "../actors/ClientKeys.ts"
import { connectivity } from "../actors/Connectivity.ts"
import { healthLoop } from "../actors/HealthLoop.ts"
import { historian } from "../actors/Historian.ts"
import { jailGuard } from "../actors/JailGuard.ts"
import { lane } from "../actors/Lane.ts"
import { mainLoop } from "../actors/MainLoop.ts"
import { notary } from "../actors/Notary.ts"
import { outbox } from "../actors/Outbox.ts"
import { type TrustOptions, trustKeeper } from "../actors/TrustKeeper.ts"
import { tunnelKeeper } from "../actors/TunnelKeeper.ts"
import { watchdog } from "../actors/Watchdog.ts"
import type { AnySpec } from "../kernel/index.ts"
import { Backoff, ChildSpec, Supervisor } from "../kernel/index.ts"
import type { ClientConfig } from "../schemas/ClientConfig.ts"
import type { Condition } from "../schemas/Conditions.ts"
import { LaneName } from "../schemas/WorkOrder.ts"

/** What the tree is a function of, beside the ports. */
export interface ClientTreeOptions {
  readonly config: ClientConfig
  readonly trust: TrustOptions
  /** SHA-256 of the configuration file's text; null where there is none. */
  readonly configurationDigest: string | null
  /** Digest of the settings in force. */
  readonly settingsDigest: string
  /** Origins of the server before there is a root that names them. */
  readonly servers: ReadonlyArray<string>
  /** What the start found to be weaker than it should be. */
  readonly standing: ReadonlyArray<Condition>
  /** Whether an agent is among the extras. Default: none is. */
  readonly hasAgent?: boolean
}

/** A handler is short, and the program has seconds to stop. */
const shutdownMs = 1_000
/** tor is asked to end, and killed a second later. */
const tunnelShutdownMs = 2_500

/** Those that look on and remember. */
const observersOf = ({
  config,
  configurationDigest,
  hasAgent = false,
  servers,
  settingsDigest,
  standing
}: ClientTreeOptions) =>
  Supervisor.spec({
    id: "observers",
    strategy: "one-for-one",
    optional: true,
    // Without its tunnel keeper a device may be silent: the configured bound holds here too.
    degradedBackoff: { maximumMs: Math.min(Backoff.degraded.maximumMs, config.sleep_maximum_ms) },
    children: [
      ChildSpec.make({
        key: TunnelKeeperKey,
        shutdownMs: tunnelShutdownMs,
        behaviour: tunnelKeeper({ longestPauseMs: config.sleep_maximum_ms })
      }),
      ChildSpec.make({
        key: HistorianKey,
        shutdownMs,
        mailbox: { overflow: "drop-oldest" },
        behaviour: historian({ settingsDigest })
      }),
      ChildSpec.make({
        key: ConnectivityKey,
        shutdownMs,
        behaviour: connectivity({ servers })
      }),
      ChildSpec.make({
        key: HealthLoopKey,
        shutdownMs,
        behaviour: healthLoop({
          intervalMs: config.health_interval_ms,
          configurationDigest,
          settingsDigest,
          standing,
          hasAgent
        })
      })
    ]
  })

/** Builds the tree. `extras` are optional children of the program's own; none of them can hurt the vital part. */
export const clientTree = <const Extras extends ReadonlyArray<AnySpec> = readonly []>(
  options: ClientTreeOptions,
  extras: Extras = [] as unknown as Extras
) => {
  const { config, hasAgent = false, standing } = options
  const allowance = { grants: config.grants, limits: config.job_limits }
  const download = {
    timeoutMs: config.download_timeout_ms,
    minimumRate: config.download_minimum_rate,
    circuits: config.download_circuits
  }
  const laneOptions = { allowance, download, diskReserveBytes: config.disk_reserve_bytes }
  const observers = observersOf(options)
  const vital = Supervisor.spec({
    id: "vital",
    strategy: "one-for-one",
    intensity: 5,
    children: [
      ChildSpec.make({
        key: WatchdogKey,
        shutdownMs,
        mailbox: { overflow: "drop-oldest" },
        behaviour: watchdog({
          loops: [
            { loop: "main-loop", vital: true },
            { loop: "outbox", vital: true },
            { loop: "trust-keeper", vital: true },
            { loop: "health-loop", vital: false }
          ],
          roundMs: 15_000,
          graceMs: 60_000
        })
      }),
      ChildSpec.make({ key: NotaryKey, shutdownMs, behaviour: notary }),
      ChildSpec.make({ key: JailGuardKey, shutdownMs, behaviour: jailGuard }),
      ChildSpec.make({
        key: TrustKeeperKey,
        shutdownMs,
        behaviour: trustKeeper(options.trust, config.sleep_maximum_ms)
      }),
      ChildSpec.make({ key: OutboxKey, shutdownMs, behaviour: outbox }),
      ChildSpec.make({ key: LaneKeys.job, shutdownMs, behaviour: lane("job", laneOptions) }),
      ChildSpec.make({ key: LaneKeys.service, shutdownMs, behaviour: lane("service", laneOptions) }),
      ChildSpec.make({
        key: MainLoopKey,
        shutdownMs,
        behaviour: mainLoop({
          lanes: LaneName.literals,
          longPollMs: config.long_poll_ms,
          takesOrders: true,
          diskReserveBytes: config.disk_reserve_bytes,
          sleepMinimumMs: config.sleep_minimum_ms,
          sleepMaximumMs: config.sleep_maximum_ms,
          standing,
          hasAgent
        })
      })
    ]
  })
  const plugged = Supervisor.spec({ id: "extras", strategy: "one-for-one", optional: true, children: extras })
  return Supervisor.spec({ id: "client", strategy: "rest-for-one", children: [observers, vital, plugged] })
}

/** The tree's type without its extras, for those who start it. */
export type ClientTree = ReturnType<typeof clientTree<readonly []>>

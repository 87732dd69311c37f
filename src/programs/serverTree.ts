/**
 * The server's tree, on one screen. Children stand in start order and stop in the reverse one.
 *
 *     server                      rest-for-one
 *     ├─ observers                optional: what they miss is gone, and nobody else notices
 *     │  ├─ recorder              keeps health reports
 *     │  ├─ retention             drops what is older or more than is kept
 *     │  └─ root-watch            warns before the trust root expires
 *     ├─ vital                    one-for-one: gives up after too many crashes, and the program is respawned
 *     │  ├─ registrar             roots, invitations, enrolments, admissions
 *     │  ├─ job-watch             wakes those who wait for a job
 *     │  └─ devices               one actor per device, put to sleep when idle
 *     ├─ campaigns                optional: without it nothing more is released, and all else goes on
 *     │  ├─ rollouts              one actor per open rollout: releases its phases
 *     │  └─ rollout-keeper        takes plans in, wakes the rollouts
 *     ├─ messaging                optional, and only where it is wanted: a broker that fails costs messages, and nothing else.
 *     │  │                        one-for-one: mailboxes and the agents' book outlive each life, so none needs another's restart
 *     │  ├─ directory             knows the agents
 *     │  ├─ re-encryptors         one actor per agent that sends
 *     │  └─ broker-keeper         the MQTT broker, whose WebSockets the doors hand over; first down, so that nothing comes in
 *     ├─ gateways
 *     │  ├─ control               the Unix socket for `postern ps`
 *     │  └─ http                  both APIs on one port
 *     └─ onion                    optional, and only where it is wanted; last up, first down
 *        ├─ device-door           the device API, for accepted devices, on a socket of its own
 *        ├─ enrol-door            the endpoints of enrolment alone
 *        ├─ management-door       the management API, where that is wanted
 *        └─ onion-keeper          tor, and what it publishes
 */
import { device } from "../actors/Device.ts"
import { jobWatch } from "../actors/JobWatch.ts"
import { recorder } from "../actors/Recorder.ts"
import { registrar } from "../actors/Registrar.ts"
import { retention } from "../actors/Retention.ts"
import { rollout } from "../actors/Rollout.ts"
import { rollouts } from "../actors/Rollouts.ts"
import { rootWatch } from "../actors/RootWatch.ts"
import {
  DeviceKey,
  JobWatchKey,
  RecorderKey,
  RegistrarKey,
  RetentionKey,
  RolloutKey,
  RolloutsKey,
  RootWatchKey
} from "../actors/ServerKeys.ts"
import { type AnySpec, ChildSpec, Supervisor } from "../kernel/index.ts"
import type { DeviceId } from "../schemas/Ids.ts"
import { Limits } from "../schemas/Limits.ts"
import type { RolloutId } from "../schemas/Rollout.ts"
import type { ServerConfig } from "../schemas/ServerConfig.ts"

/** A handler is short, and the program has seconds to stop. */
const shutdownMs = 1_000

/** Longer than any poll is held. */
const passivateAfterMs = 5 * 60_000

const campaigns = () =>
  Supervisor.spec({
    id: "campaigns",
    strategy: "one-for-one",
    optional: true,
    children: [
      Supervisor.dynamic({
        key: RolloutKey,
        // Some that have just ended, and ids that never were.
        maximum: 4 * Limits.openRollouts,
        child: (id) =>
          ChildSpec.make({
            id,
            shutdownMs,
            restart: "transient",
            mailbox: { capacity: 64 },
            behaviour: rollout(id as RolloutId)
          })
      }),
      ChildSpec.make({ key: RolloutsKey, shutdownMs, behaviour: rollouts })
    ]
  })

/** Its broker is tried again for ever: its port may be taken, or its disk full, for a while. */
const messagingOf = <const Children extends ReadonlyArray<AnySpec>>(children: Children) =>
  Supervisor.spec({
    id: "messaging",
    strategy: "one-for-one",
    optional: true,
    degradedBackoff: { firstMs: 1_000, maximumMs: 30_000 },
    children
  })

/** tor may be away for long: it is tried again after a minute at the latest, whatever happened. */
const overTor = <const Children extends ReadonlyArray<AnySpec>>(children: Children) =>
  Supervisor.spec({
    id: "onion",
    strategy: "one-for-one",
    optional: true,
    intensity: 10,
    backoff: { firstMs: 100 },
    degradedBackoff: { firstMs: 5_000, maximumMs: 60_000 },
    children
  })

/** Builds the tree from the configuration; its ports come from the context. Nothing here is shared between two trees. */
export const serverTree = <
  const Gateways extends ReadonlyArray<AnySpec>,
  const Onion extends ReadonlyArray<AnySpec> = readonly [],
  const Messaging extends ReadonlyArray<AnySpec> = readonly []
>(
  config: Pick<ServerConfig, "poll_sleep_ms" | "maximum_devices" | "retention">,
  gateways: Gateways,
  parts: {
    /** What reaches the server over Tor; null where nothing does. */
    readonly onion?: Onion | null
    /** What carries messages between devices; null where nothing does. */
    readonly messaging?: Messaging | null
  } = {}
) => {
  const { messaging = null, onion = null } = parts
  const observers = Supervisor.spec({
    id: "observers",
    strategy: "one-for-one",
    optional: true,
    children: [
      ChildSpec.make({
        key: RecorderKey,
        shutdownMs,
        mailbox: { capacity: 4_096, overflow: "drop-oldest" },
        behaviour: recorder
      }),
      ChildSpec.make({ key: RetentionKey, shutdownMs, behaviour: retention(config.retention) }),
      ChildSpec.make({ key: RootWatchKey, shutdownMs, behaviour: rootWatch })
    ]
  })
  const vital = Supervisor.spec({
    id: "vital",
    strategy: "one-for-one",
    intensity: 5,
    children: [
      ChildSpec.make({ key: RegistrarKey, shutdownMs, behaviour: registrar }),
      ChildSpec.make({ key: JobWatchKey, shutdownMs, mailbox: { capacity: 16_384 }, behaviour: jobWatch }),
      Supervisor.dynamic({
        key: DeviceKey,
        maximum: config.maximum_devices,
        passivateAfterMs,
        child: (id) =>
          ChildSpec.make({
            id,
            shutdownMs,
            mailbox: { capacity: 64 },
            behaviour: device(id as DeviceId, { pollSleepMs: config.poll_sleep_ms })
          })
      })
    ]
  })
  const doors = Supervisor.spec({ id: "gateways", strategy: "one-for-one", children: gateways })
  return Supervisor.spec({
    id: "server",
    strategy: "rest-for-one",
    children: [
      observers,
      vital,
      campaigns(),
      ...(messaging === null ? [] : [messagingOf(messaging)]),
      doors,
      ...(onion === null ? [] : [overTor(onion)])
    ]
  })
}

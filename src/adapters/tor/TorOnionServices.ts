/**
 * The port `OnionServices` over a tor: one that is started, or one that runs already.
 *
 * @module
 */
import { join, resolve } from "node:path"
import { Effect, Layer, Queue, type Scope, Semaphore } from "effect"
import { x25519KeyBytes } from "../../crypto/Engine.ts"
import { type OnionServiceKey, onionServiceKey } from "../../crypto/OnionAddress.ts"
import { formatOnionKey } from "../../crypto/OnionKeys.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { Entropy } from "../../ports/Entropy.ts"
import {
  type OnionHosts,
  OnionServices,
  OnionTrouble,
  type OpenOnionServices
} from "../../ports/OnionServices.ts"
import type { OnionClientKey } from "../../schemas/Onion.ts"
import type { OnionServiceName, OnionServiceStatus, OnionStatus } from "../../schemas/OnionStatus.ts"
import type { OnionConfig } from "../../schemas/ServerConfig.ts"
import { NodeKeys } from "../NodeKeys.ts"
import { type CircuitFigures, countCircuits, Descriptors, untilQuiet } from "./OnionDescriptors.ts"
import {
  commandPublisher,
  folderPublisher,
  type Publisher,
  troubled,
  type WantedService
} from "./OnionPublishing.ts"
import type { TorBootstrap } from "./TorBootstrap.ts"
import { type TorControl, torInfo } from "./TorControl.ts"
import { openTor, type TorNode } from "./TorNode.ts"
import { tunnelStateOf } from "./TunnelStates.ts"

/** Below the state folder: tor's own files, the services' folders, and the doors' sockets. Absolute: tor runs elsewhere. */
export const onionPaths = (stateFolder: string) => {
  const folder = resolve(stateFolder, "onion")
  return { tor: join(folder, "tor"), services: join(folder, "services"), doors: join(folder, "doors") }
}

export interface OnionServicesOptions {
  readonly stateFolder: string
  readonly settings: Pick<OnionConfig, "enrolment" | "management"> & Parameters<typeof openTor>[0]["settings"]
  /** Where a service's door is open now: `unix:` and a path, or an origin; null while it is shut. */
  readonly door: (service: OnionServiceName) => string | null
}

/** Whoever asks how it is gets an answer soon, with less in it where tor is slow. */
const askMs = 2_000

type Keys = Readonly<Record<OnionServiceName, OnionServiceKey>>

/** What is to be published; the device service from the first list of clients on. */
interface Wishes {
  readonly clients: ReadonlyArray<OnionClientKey> | null
  readonly enrolment: boolean
}

/** The services there are, in the order in which they are shown. */
export const servicesOf = (
  settings: Pick<OnionConfig, "enrolment" | "management">
): ReadonlyArray<OnionServiceName> => [
  "device",
  ...(settings.enrolment === "never" ? [] : (["enrol"] as const)),
  ...(settings.management ? (["management"] as const) : [])
]

const serviceStatus = (
  service: OnionServiceName,
  key: OnionServiceKey,
  descriptors: Descriptors,
  circuits: ReadonlyMap<string, CircuitFigures> | null,
  wishes: Wishes
): OnionServiceStatus => {
  const { failures, state, uploadedAtMs, uploads } = descriptors.of(key.host)
  const here = circuits === null ? null : (circuits.get(key.host) ?? { introductionPoints: 0, circuits: 0 })
  return {
    service,
    address: `http://${key.host}`,
    descriptor: state,
    uploads,
    failures,
    uploaded_at_ms: uploadedAtMs,
    introduction_points: here?.introductionPoints ?? null,
    circuits: here?.circuits ?? null,
    authorised: service === "device" ? (wishes.clients?.length ?? 0) : null
  }
}

const plain = (text: string, length: number): string =>
  text
    .replace(/\p{C}+/gu, " ")
    .slice(0, length)
    .toWellFormed()

/** What tor says of itself. Once it was ready its progress says nothing any more: circuits do. */
export const torStatus = (own: boolean, bootstrap: TorBootstrap): OnionStatus["tor"] => {
  const { circuits, live, progress, reason, summary, warning } = bootstrap
  const why = warning ?? reason
  const lost = circuits && live ? null : `tor has lost its network${why === null ? "" : `: ${why}`}`
  const told = progress === 100 ? lost : warning
  return { own, progress, summary: plain(summary, 300), warning: told === null ? null : plain(told, 500) }
}

/** Runs `mend` some time after each call of what it gives, once for many of them. */
const makeMending = Effect.fnUntraced(function* (mend: Effect.Effect<void>) {
  const calls = yield* Queue.sliding<void>(1)
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(Queue.take(calls), mend)))
  return () => void Queue.offerUnsafe(calls, undefined)
})

/** After an upload that failed: how long until it is made anew, the first and the longest time. */
const anewMs = { first: 1_000, last: 60_000 }

/** What is to be published now, and how tor is told of it. */
const makeWishes = Effect.fnUntraced(function* (
  publisher: Publisher,
  descriptors: Descriptors,
  freshKey: Effect.Effect<OnionClientKey>,
  keys: Keys,
  { door, settings }: OnionServicesOptions
) {
  const shown = servicesOf(settings)
  const alone = (yield* Semaphore.make(1)).withPermits(1)
  let wishes: Wishes = { clients: null, enrolment: false }
  /** Whoever knows the secret of a listed key can come in. Nobody knows this one: it was forgotten when it was made. */
  let nobody = yield* freshKey
  /** Whether tor may not have been told of the last wish. */
  let isBehind = false

  const isWanted = (service: OnionServiceName): boolean =>
    service === "management" || (service === "enrol" ? wishes.enrolment : wishes.clients !== null)
  const wantedOf = (service: OnionServiceName): Effect.Effect<WantedService, OnionTrouble> => {
    const place = door(service)
    const clients = service === "device" ? new Set([nobody, ...(wishes.clients ?? [])]) : null
    if (place !== null) return Effect.succeed({ service, key: keys[service], clients, door: place })
    return Effect.fail(
      new OnionTrouble({ operation: "publishing", reason: `the door of ${service} is not open yet` })
    )
  }
  const wanted = Effect.suspend(() => Effect.forEach(shown.filter(isWanted), wantedOf))
  const publish = Effect.gen(function* () {
    isBehind = true
    const all = yield* wanted
    yield* untilQuiet(descriptors)
    for (const service of shown) descriptors.wanted(keys[service].host, isWanted(service))
    yield* publisher.publish(all)
    isBehind = false
  })
  return {
    current: () => wishes,
    wish: (next: Partial<Wishes>) =>
      alone(
        Effect.suspend(() => {
          wishes = { ...wishes, ...next }
          return publish
        })
      ),
    check: alone(
      Effect.gen(function* () {
        if (isBehind) return yield* publish
        if (yield* publisher.holds(yield* wanted)) return
        yield* Effect.logWarning("the onion services were not as they had been set, and are set again")
        yield* publish
      })
    ),
    /** tor makes descriptors anew only where something has changed: another key of nobody's, or the whole service. */
    publishAnew: (service: OnionServiceName) =>
      alone(
        Effect.gen(function* () {
          if (!isWanted(service)) return
          if (service === "device") nobody = yield* freshKey
          else yield* publisher.publish((yield* wanted).filter((each) => each.service !== service))
          yield* publish
        })
      )
  }
})

/** The services over a tor that takes commands. */
const over = Effect.fnUntraced(function* (
  tor: TorNode & { readonly control: TorControl },
  publisher: Publisher,
  freshKey: Effect.Effect<OnionClientKey>,
  keys: Keys,
  options: OnionServicesOptions
): Effect.fn.Return<OpenOnionServices, OnionTrouble, Scope.Scope> {
  const shown = servicesOf(options.settings)
  const descriptors = new Descriptors(shown.map((service) => keys[service].host))
  const { check, current, publishAnew, wish } = yield* makeWishes(
    publisher,
    descriptors,
    freshKey,
    keys,
    options
  )
  const logged = <E extends Error>(effect: Effect.Effect<void, E>) =>
    Effect.catch(effect, (error) => Effect.logError(error.message))

  let delayMs = anewMs.first
  const failedNow = () => shown.filter((service) => descriptors.of(keys[service].host).state === "failed")
  const anew = yield* makeMending(
    Effect.gen(function* () {
      yield* Effect.sleep(delayMs)
      delayMs = Math.min(delayMs * 2, anewMs.last)
      yield* Effect.forEach(failedNow(), (service) => logged(publishAnew(service)))
    })
  )
  const onDescriptor = (text: string): void => {
    if (descriptors.take(text) !== null) anew()
    else if (failedNow().length === 0) delayMs = anewMs.first
  }
  let wasReady = false
  // The configuration that tor reads anew knows nothing of the services.
  const reloaded = yield* makeMending(logged(check))
  yield* tor.control
    .subscribe(["HS_DESC", "SIGNAL"], ({ name, text }) => {
      if (name === "HS_DESC") onDescriptor(text)
      else if (text.startsWith("RELOAD")) reloaded()
    })
    .pipe(Effect.mapError(troubled("listening")))
  return {
    setClients: (clients) => wish({ clients }),
    publishEnrolment: (isOpen) => wish({ enrolment: isOpen }),
    check,
    status: Effect.gen(function* () {
      const circuits = yield* Effect.option(torInfo(tor.control, "circuit-status", { timeoutMs: askMs }))
      const counted = circuits._tag === "None" ? null : countCircuits(circuits.value)
      return {
        tor: torStatus(tor.pid !== null, yield* tor.bootstrap),
        services: shown.map((service) =>
          serviceStatus(service, keys[service], descriptors, counted, current())
        )
      }
    }),
    tunnel:
      tor.pid === null
        ? Effect.succeed(null)
        : Effect.map(tor.bootstrap, (bootstrap) => {
            const state = tunnelStateOf(bootstrap, wasReady)
            wasReady ||= state.phase === "ready"
            return state
          }),
    ended: tor.ended
  }
})

const closedStatus = (keys: Keys, { settings }: OnionServicesOptions): OnionStatus => {
  const nothing = new Descriptors([])
  return {
    tor: { own: settings.control === null, progress: 0, summary: "tor does not run", warning: null },
    services: servicesOf(settings).map((service) => ({
      ...serviceStatus(service, keys[service], nothing, null, { clients: null, enrolment: false }),
      authorised: null
    }))
  }
}

/** A server's keys to its services. */
const serviceKeys = Effect.gen(function* () {
  const engine = yield* CryptoEngine
  const { signingSeed } = yield* NodeKeys
  const keys: Keys = {
    enrol: onionServiceKey(engine, signingSeed, "enrol"),
    device: onionServiceKey(engine, signingSeed, "device"),
    management: onionServiceKey(engine, signingSeed, "management")
  }
  return keys
})

const hostsOf = (keys: Keys): OnionHosts => ({
  enrol: keys.enrol.host,
  device: keys.device.host,
  management: keys.management.host
})

/** The hosts of the server whose keys are at hand; no tor is needed for that. */
export const onionHosts: Effect.Effect<OnionHosts, never, CryptoEngine | NodeKeys> = Effect.map(
  serviceKeys,
  hostsOf
)

export const TorOnionServices = (
  options: OnionServicesOptions
): Layer.Layer<OnionServices, never, CryptoEngine | Entropy | NodeKeys> =>
  Layer.effect(
    OnionServices,
    Effect.gen(function* () {
      const engine = yield* CryptoEngine
      const entropy = yield* Entropy
      const keys = yield* serviceKeys
      const { services, tor: folder } = onionPaths(options.stateFolder)
      const freshKey = Effect.map(entropy.bytes(x25519KeyBytes), (secret) =>
        formatOnionKey(engine.x25519.publicKey(secret))
      )
      const open = Effect.gen(function* () {
        const tor = yield* openTor({
          folder,
          settings: options.settings,
          proxy: null,
          socks: false,
          lines: [],
          entropy
        }).pipe(Effect.mapError(troubled("starting tor")))
        const { control } = tor
        if (control === null)
          return yield* new OnionTrouble({ operation: "starting tor", reason: "it takes no commands" })
        const publisher = tor.pid === null ? commandPublisher(control) : folderPublisher(control, services)
        return yield* over({ ...tor, control }, publisher, freshKey, keys, options)
      })
      return { hosts: hostsOf(keys), closed: closedStatus(keys, options), open }
    })
  )

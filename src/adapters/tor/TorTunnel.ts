/**
 * The port `Tunnel` on a tor: one of this program's own in `<state folder>/tor`, or one that runs already.
 *
 * @module
 */
import { resolve } from "node:path"
import { Deferred, Effect, Layer, Redacted, Result, type Scope } from "effect"
import { encodeBase64 } from "../../crypto/Base64.ts"
import type { Engine } from "../../crypto/Engine.ts"
import { onionKeyOf } from "../../crypto/OnionKeys.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { Entropy } from "../../ports/Entropy.ts"
import { type OpenTunnel, Tunnel } from "../../ports/Tunnel.ts"
import type { OnionHost } from "../../schemas/Onion.ts"
import { TorError } from "../../schemas/TorError.ts"
import type { TorSettings } from "../../schemas/TorSettings.ts"
import type { TunnelState } from "../../schemas/TunnelState.ts"
import { loadOnionKey } from "./OnionClientKeyFile.ts"
import type { TorControl, TorControlError } from "./TorControl.ts"
import { openTor, type TorNode } from "./TorNode.ts"
import { tunnelStateOf, tunnelWords } from "./TunnelStates.ts"

/** Where a device's own tor has its files: absolute, because tor runs in there. */
export const torFolder = (stateFolder: string): string => resolve(stateFolder, "tor")

export interface TorTunnelOptions {
  readonly stateFolder: string
  readonly settings: TorSettings
  readonly proxy: Redacted.Redacted<string> | null
  /** Whether Tor is wanted from the start, whatever is asked for. */
  readonly always: boolean
  /** See `TorNodeOptions`. */
  readonly watchMs?: number
}

type Secret = Redacted.Redacted<Uint8Array>

const notNeeded: TunnelState = {
  phase: "off",
  progress: 0,
  summary: "not needed yet",
  reason: null,
  problem: null,
  clockSkewSeconds: null,
  clockDoubt: null
}

const stateKeys = Object.keys(notNeeded) as ReadonlyArray<keyof TunnelState>

const isSame = (left: TunnelState, right: TunnelState): boolean =>
  stateKeys.every((key) => left[key] === right[key])

/** The state, and those who wait for another one. */
const makeCell = () => {
  let state = notNeeded
  const waiting = new Set<() => void>()
  return {
    get: () => state,
    set: (next: TunnelState): void => {
      if (isSame(state, next)) return
      state = next
      for (const wake of [...waiting]) wake()
    },
    changed: (from: TunnelState): Effect.Effect<TunnelState> =>
      Effect.callback((resume) => {
        const wake = (): void => {
          if (isSame(state, from)) return
          waiting.delete(wake)
          resume(Effect.succeed(state))
        }
        waiting.add(wake)
        wake()
        return Effect.sync(() => void waiting.delete(wake))
      })
  }
}
type Cell = ReturnType<typeof makeCell>

const lost = (reason: string, problem: TunnelState["problem"]): TunnelState => ({
  ...notNeeded,
  phase: "lost",
  summary: problem === null ? "Tor does not run" : "Tor cannot run",
  reason: tunnelWords(reason),
  problem
})

/** The address of a service within an origin: 56 characters; undefined where there is none of today's kind. */
const serviceOf = (origin: string): string | undefined => /([a-z2-7]{55}d)\.onion(?::\d+)?$/.exec(origin)?.[1]

/** Tor while it runs, with the services whose key it has been told. */
interface Held {
  readonly node: TorNode
  readonly told: Map<string, Effect.Effect<void, TorControlError>>
}

const addKey = (control: TorControl, service: string, secret: Secret) =>
  Effect.asVoid(
    control.send(`ONION_CLIENT_AUTH_ADD ${service} x25519:${encodeBase64(Redacted.value(secret))}`)
  )

/** Tells tor keys, each once in a life of it; those who ask meanwhile wait for the same answer. */
const tellKey = Effect.fnUntraced(function* (held: Held, service: string, secret: Secret) {
  const { control } = held.node
  if (control === null) return
  const telling = held.told.get(service) ?? (yield* Effect.cached(addKey(control, service, secret)))
  held.told.set(service, telling)
  yield* telling.pipe(
    Effect.onExit((exit) =>
      Effect.sync(() => {
        // What failed is tried again by the next one who asks.
        if (exit._tag === "Failure" && held.told.get(service) === telling) held.told.delete(service)
      })
    )
  )
})

/** A tor that is not ours goes on, and is not to keep the device's keys for whoever uses it next. */
const takeKeysBack = ({ node: { control, pid }, told }: Held): Effect.Effect<void> =>
  control === null || pid !== null
    ? Effect.void
    : Effect.forEach(
        [...told.keys()],
        (service) => control.send(`ONION_CLIENT_AUTH_REMOVE ${service}`, { timeoutMs: 500 }),
        {
          concurrency: "unbounded",
          discard: true
        }
      ).pipe(Effect.ignore)

/**
 * New circuits cost tor the keys it was told by command: they are told anew, when the signal takes effect, which may be
 * seconds after it was given.
 */
const forgetWithTor = ({ node: { control }, told }: Held): Effect.Effect<void, TorError, Scope.Scope> =>
  control === null
    ? Effect.void
    : control
        .subscribe(["SIGNAL"], ({ text }) => {
          if (text.startsWith("NEWNYM")) told.clear()
        })
        .pipe(Effect.mapError((error) => new TorError({ code: "failed", reason: error.message, mend: "" })))

/** What the lives of a tunnel share. */
interface Shared {
  readonly options: TorTunnelOptions
  readonly entropy: Entropy["Service"]
  readonly cell: Cell
  held: Held | null
}

const open = (shared: Shared): Effect.Effect<OpenTunnel, TorError, Scope.Scope> =>
  Effect.gen(function* () {
    const { cell, entropy, options } = shared
    let wasReady = false
    cell.set({ ...notNeeded, phase: "starting", summary: "Starting Tor" })
    const node = yield* openTor({
      folder: torFolder(options.stateFolder),
      settings: options.settings,
      proxy: options.proxy,
      socks: true,
      lines: [],
      entropy,
      ...(options.watchMs === undefined ? {} : { watchMs: options.watchMs }),
      onBootstrap: (bootstrap) => {
        const next = tunnelStateOf(bootstrap, wasReady)
        wasReady ||= next.phase === "ready"
        cell.set(next)
      }
    }).pipe(Effect.tapError((error) => Effect.sync(() => cell.set(lost(error.message, error.code)))))
    const held: Held = { node, told: new Map() }
    yield* forgetWithTor(held)
    const end = (reason: string) =>
      Effect.sync(() => {
        if (shared.held !== held) return
        shared.held = null
        cell.set(lost(reason, null))
      })
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        shared.held = held
      }),
      () => Effect.andThen(end("it was ended"), takeKeysBack(held))
    )
    return { ended: Effect.tap(node.ended, end) }
  })

/** The secrets of this device: its own, made on first need, and those given for single services. */
const makeSecrets = (shared: Shared, engine: Engine) => {
  const given = new Map<string, Secret>()
  let own: Secret | undefined
  const load = Effect.suspend(() =>
    own === undefined
      ? Effect.tap(loadOnionKey(shared.options.stateFolder, shared.entropy), (secret) =>
          Effect.sync(() => {
            own = secret
          })
        )
      : Effect.succeed(own)
  )
  return {
    publicKey: Effect.map(load, (secret) => onionKeyOf(engine, secret)),
    for: (service: string): Effect.Effect<Secret, TorError> =>
      Effect.suspend(() => {
        const secret = given.get(service)
        return secret === undefined ? load : Effect.succeed(secret)
      }),
    give: (service: string, secret: Secret | null): void => {
      if (secret === null) given.delete(service)
      else given.set(service, secret)
    }
  }
}

const makeTunnel = (shared: Shared, engine: Engine, wanted: Deferred.Deferred<void>): Tunnel["Service"] => {
  const { cell } = shared
  const secrets = makeSecrets(shared, engine)
  const authorised = Effect.fnUntraced(function* (held: Held, service: string) {
    const done = yield* Effect.result(
      Effect.flatMap(secrets.for(service), (secret) => tellKey(held, service, secret))
    )
    // The service may need no key; where it does, tor's answer to the request will say so.
    if (Result.isFailure(done))
      yield* Effect.logWarning(`tor could not be told this device's key: ${done.failure.message}`)
  })
  return {
    open: open(shared),
    state: Effect.sync(cell.get),
    changed: cell.changed,
    wanted: Deferred.await(wanted),
    endpoint: Effect.fnUntraced(function* (origin) {
      Deferred.doneUnsafe(wanted, Effect.void)
      const { held } = shared
      if (held === null) return null
      const service = serviceOf(origin)
      if (service !== undefined) yield* authorised(held, service)
      return held.node.socks
    }),
    clientKey: secrets.publicKey,
    authorise: (host: OnionHost, secret) =>
      Effect.gen(function* () {
        const service = host.slice(0, -".onion".length)
        secrets.give(service, secret)
        const { held } = shared
        if (held === null) return
        // tor takes the new one in place of the one it has.
        held.told.delete(service)
        yield* tellKey(held, service, yield* secrets.for(service)).pipe(
          Effect.mapError((error) => new TorError({ code: "failed", reason: error.message, mend: "" }))
        )
      }),
    renew: Effect.suspend(() => {
      const control = shared.held?.node.control ?? null
      return control === null
        ? Effect.void
        : Effect.mapError(
            Effect.asVoid(control.send("SIGNAL NEWNYM")),
            (error) => new TorError({ code: "failed", reason: error.message, mend: "" })
          )
    })
  }
}

/** The tunnel. Nothing is started before an actor opens it. */
export const TorTunnel = (options: TorTunnelOptions): Layer.Layer<Tunnel, never, Entropy | CryptoEngine> =>
  Layer.effect(
    Tunnel,
    Effect.gen(function* () {
      const entropy = yield* Entropy
      const wanted = yield* Deferred.make<void>()
      if (options.always) yield* Deferred.succeed(wanted, undefined)
      return makeTunnel({ options, entropy, cell: makeCell(), held: null }, yield* CryptoEngine, wanted)
    })
  )

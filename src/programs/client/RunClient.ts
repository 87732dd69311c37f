/** Runs the client: state folder, identity, ledger, link, tree; until it is told to stop or cannot go on. */
import { Deferred, Effect, Layer, Redacted, Result, Schema } from "effect"
import { ControlGatewayKey, MainLoopKey } from "../../actors/ClientKeys.ts"
import type { TrustOptions } from "../../actors/TrustKeeper.ts"
import { fitsPin, restoreRoot } from "../../actors/TrustState.ts"
import { BubblewrapJail } from "../../adapters/BubblewrapJail.ts"
import { controlGateway } from "../../adapters/ControlGateway.ts"
import { FileIdentity } from "../../adapters/FileIdentity.ts"
import { httpTransport } from "../../adapters/HttpTransport.ts"
import { ledgerDeviceClock } from "../../adapters/LedgerDeviceClock.ts"
import { LinuxHost } from "../../adapters/LinuxHost.ts"
import { NativeCryptoEngine } from "../../adapters/NativeCrypto.ts"
import { PackageFiles } from "../../adapters/PackageFiles.ts"
import { logFromCallback, ProgramLog } from "../../adapters/ProgramLog.ts"
import { SignedLink } from "../../adapters/SignedLink.ts"
import { SqliteLedger } from "../../adapters/SqliteLedger.ts"
import { lockState } from "../../adapters/StateLock.ts"
import { SystemdNotify } from "../../adapters/SystemdNotify.ts"
import { SystemEntropy } from "../../adapters/SystemEntropy.ts"
import { ActorSystem, ChildSpec } from "../../kernel/index.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { Identity } from "../../ports/Identity.ts"
import { Ledger } from "../../ports/Ledger.ts"
import { ServiceManager } from "../../ports/ServiceManager.ts"
import { software } from "../../schemas/Version.ts"
import { drainClient } from "../clientDrain.ts"
import { sweepLeftovers } from "../clientSweep.ts"
import { clientTree } from "../clientTree.ts"
import { untilTerminated } from "../Service.ts"
import { type ClientSettings, misconfigured } from "./ClientSettings.ts"

/** `--once` did not get an answer. */
export class NotReached extends Schema.TaggedError<NotReached>()("NotReached", { detail: Schema.String }) {
  override get message(): string {
    return `no poll was answered: ${this.detail}`
  }
}

const onceMs = 60_000
const lookAgainMs = 100

/** Keys, ledger and what needs no network: all that decides whether the client can run at all. */
export const ClientServices = ({ config }: ClientSettings, entry: URL) => {
  const stateFolder = config.state_folder
  const identity = FileIdentity({ stateFolder, kind: "device" }).pipe(
    Layer.provideMerge(Layer.merge(NativeCryptoEngine, SystemEntropy))
  )
  const stored = Layer.merge(
    SqliteLedger({ stateFolder, entry, onTrouble: logFromCallback }),
    PackageFiles({ stateFolder })
  )
  return Layer.mergeAll(
    ledgerDeviceClock(),
    BubblewrapJail.layer({ bwrap: config.bwrap, uidBase: config.jail_uid_base }),
    LinuxHost({ stateFolder }),
    SystemdNotify(process.env)
  ).pipe(Layer.provideMerge(stored), Layer.provideMerge(identity))
}

/** Where the server is: from the root kept, the invitation, or the configuration. */
const bootstrapAddresses = (settings: ClientSettings) =>
  Effect.gen(function* () {
    const ledger = yield* Ledger
    const engine = yield* CryptoEngine
    const note = yield* ledger.note("roots")
    const held = note === null ? null : restoreRoot(engine, note)
    const known =
      held !== null && Result.isSuccess(held) && fitsPin(held.success, trustOptions(settings).invitation)
        ? (held.success.root.servers.find((server) => server.id === held.success.server)?.addresses ?? [])
        : []
    const addresses = [
      ...known,
      ...(settings.invitation?.addresses ?? []),
      ...(settings.config.server === null ? [] : [settings.config.server])
    ]
    if (addresses.length > 0) return [...new Set(addresses)]
    return yield* misconfigured(
      "no server is known: name it with --server URL, or give an invitation (--invitation TEXT, or $POSTERN_INVITATION)"
    )
  })

const trustOptions = ({ config, invitation }: ClientSettings): TrustOptions => ({
  name: config.name,
  invitation:
    invitation === null
      ? null
      : {
          server: invitation.server,
          rootDigest: invitation.root_digest,
          secret: Redacted.make(invitation.secret)
        }
})

/** Waits until a poll was answered and everything that came of it is done and sent. */
const waitOnce = (system: ActorSystem) =>
  Effect.gen(function* () {
    const ledger = yield* Ledger
    const status = system.ref(MainLoopKey).ask("Status")
    const look = Effect.delay(status, lookAgainMs)
    yield* look.pipe(
      Effect.repeat({
        until: ({ again, blocked, polls }) => polls > 0 && !again && blocked !== "clock_unproven"
      }),
      Effect.timeoutOrElse({
        duration: onceMs,
        orElse: () => Effect.flatMap(status, ({ detail }) => Effect.fail(new NotReached({ detail })))
      })
    )
    const busy = Effect.map(
      Effect.all([ledger.unfinished(), ledger.outboxSize]),
      ([rows, size]) => rows.length + size.items
    )
    yield* Effect.repeat(Effect.delay(busy, lookAgainMs), { until: (left) => left === 0 })
  })

/** Starts the tree, with the control socket for `postern ps` on this machine, which wants to look at all of it. */
const startClient = (settings: ClientSettings) =>
  Effect.gen(function* () {
    const { config, configurationDigest } = settings
    const started = yield* Deferred.make<ActorSystem>()
    const withSystem = <A>(ask: (system: ActorSystem) => Effect.Effect<A>) =>
      Effect.flatMap(Deferred.await(started), ask)
    const handlers = {
      inspect: withSystem((system) => system.inspect()),
      status: withSystem((system) => Effect.orElseSucceed(system.ref(MainLoopKey).ask("Status"), () => null))
    }
    const control = ChildSpec.make({
      key: ControlGatewayKey,
      shutdownMs: 500,
      behaviour: controlGateway({ stateFolder: config.state_folder, handlers })
    })
    const system = yield* ActorSystem.make({
      name: "client",
      root: clientTree({ config, configurationDigest, trust: trustOptions(settings) }, [control])
    })
    yield* Deferred.succeed(started, system)
    return system
  })

/** The tree, from its start to its end. */
const runTree = (settings: ClientSettings) =>
  Effect.gen(function* () {
    const manager = yield* ServiceManager
    const identity = yield* Identity
    yield* sweepLeftovers
    const system = yield* startClient(settings)
    // Before the tree itself: the running job.
    yield* Effect.addFinalizer(() => Effect.andThen(manager.stopping, drainClient(system)))
    yield* manager.ready
    yield* Effect.logInfo(`${software} runs as ${identity.id}`)
    yield* settings.once
      ? Effect.raceFirst(waitOnce(system), untilTerminated("client", system))
      : untilTerminated("client", system)
  })

/** Starts the client and waits; it is stopped in order when the fiber is interrupted. */
export const runClient = (settings: ClientSettings, entry: URL) =>
  Effect.gen(function* () {
    yield* lockState(settings.config.state_folder).pipe(
      Effect.mapError((error) => misconfigured(error.message))
    )
    const local = yield* Layer.build(ClientServices(settings, entry)).pipe(
      Effect.mapError((error) =>
        misconfigured("message" in error && error.message !== "" ? error.message : String(error))
      )
    )
    yield* Effect.gen(function* () {
      const addresses = yield* bootstrapAddresses(settings)
      const transport = yield* httpTransport()
      yield* Effect.provide(runTree(settings), SignedLink({ transport, addresses }))
    }).pipe(Effect.provideContext(local))
  }).pipe(Effect.scoped, Effect.provide(ProgramLog))

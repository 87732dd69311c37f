/** Runs the client: state folder, identity, ledger, link, tree; until it is told to stop or cannot go on. */
import { Deferred, Effect, Layer, Result, Schedule, Schema } from "effect"
import {
  ControlGatewayKey,
  HealthLoopKey,
  HistorianKey,
  MainLoopKey,
  SmartAgentKey
} from "../../actors/ClientKeys.ts"
import { condition } from "../../actors/DeviceConditions.ts"
import { keptEnrolAddresses } from "../../actors/EnrolAddresses.ts"
import { AgentTrustCell } from "../../adapters/AgentTrustCell.ts"
import { ChosenEngine, engineText } from "../../adapters/ChosenEngine.ts"
import { controlGateway } from "../../adapters/ControlGateway.ts"
import { FileIdentity } from "../../adapters/FileIdentity.ts"
import { ledgerDeviceClock } from "../../adapters/LedgerDeviceClock.ts"
import { LinuxHost } from "../../adapters/LinuxHost.ts"
import { PackageFiles } from "../../adapters/PackageFiles.ts"
import { logFromCallback, logOptions, programLog } from "../../adapters/ProgramLog.ts"
import { findNeeds } from "../../adapters/Requirements.ts"
import { SealedOnionAccess } from "../../adapters/SealedOnionAccess.ts"
import { SignedLink } from "../../adapters/SignedLink.ts"
import { SqliteHistory } from "../../adapters/SqliteHistory.ts"
import { SqliteLedger } from "../../adapters/SqliteLedger.ts"
import { lockState } from "../../adapters/StateLock.ts"
import { SystemEntropy } from "../../adapters/SystemEntropy.ts"
import { canonicalBytes } from "../../crypto/CanonicalJson.ts"
import { digestOf } from "../../crypto/Documents.ts"
import type { Engine } from "../../crypto/Engine.ts"
import { ActorSystem, ChildSpec } from "../../kernel/index.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { Identity } from "../../ports/Identity.ts"
import { Ledger } from "../../ports/Ledger.ts"
import { ServiceManager } from "../../ports/ServiceManager.ts"
import type { ClientConfig } from "../../schemas/ClientConfig.ts"
import type { Condition } from "../../schemas/Conditions.ts"
import { software } from "../../schemas/Version.ts"
import { agentLocal } from "../agentLocal.ts"
import { drainClient } from "../clientDrain.ts"
import { sweepLeftovers } from "../clientSweep.ts"
import { clientTree } from "../clientTree.ts"
import { untilTerminated } from "../Service.ts"
import { AgentServices, AgentStoreInWorker, agentBranch } from "./Agent.ts"
import { bootstrapAddresses, trustOptions } from "./Bootstrap.ts"
import { type ClientSettings, Misconfigured, misconfigured } from "./ClientSettings.ts"
import type { ConfigurationMade } from "./ConfigurationFile.ts"
import { rotateKey, rotateRequest } from "./KeysCommand.ts"
import { connectivityOf, isTunnelledBy, routesOf, transportOf, tunnelOf } from "./Reach.ts"
import { selfReport } from "./selfReport.ts"
import { alone, type Surroundings, settleUnderWarden } from "./UnderWarden.ts"

/** `--once` did not get an answer. */
export class NotReached extends Schema.TaggedError<NotReached>()("NotReached", { detail: Schema.String }) {
  override get message(): string {
    return `no poll was answered: ${this.detail}`
  }
}

const onceMs = 60_000
const lookAgainMs = 100
const lockAgain = Schedule.max([Schedule.spaced("100 millis"), Schedule.recurs(20)])

/** Keys, ledger and what needs no network: all that decides whether the client can run at all. */
export const ClientServices = (
  settings: ClientSettings,
  entry: URL,
  surroundings: Surroundings = alone(settings)
) => {
  const { config } = settings
  const stateFolder = config.state_folder
  const onTrouble = logFromCallback(logOptions(config))
  const identity = FileIdentity({ stateFolder, kind: "device" }).pipe(
    Layer.provideMerge(Layer.merge(ChosenEngine(config.crypto_engine), SystemEntropy))
  )
  const stored = Layer.merge(SqliteLedger({ stateFolder, entry, onTrouble }), PackageFiles({ stateFolder }))
  return Layer.mergeAll(
    ledgerDeviceClock(),
    AgentTrustCell,
    AgentStoreInWorker({ stateFolder, entry, onTrouble }),
    surroundings,
    LinuxHost({ stateFolder, requiredProcesses: config.required_processes }),
    Layer.merge(connectivityOf(config), SealedOnionAccess).pipe(Layer.provideMerge(tunnelOf(config))),
    SqliteHistory({ stateFolder })
  ).pipe(Layer.provideMerge(stored), Layer.provideMerge(identity))
}

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

/** What is known before the tree starts. */
interface Found {
  readonly servers: ReadonlyArray<string>
  readonly standing: ReadonlyArray<Condition>
}

/**
 * The state folder tells machines apart, not settings. Of secrets only whether there are any: the digest is sent, and a
 * password that people made could be guessed from it.
 */
const settingsDigest = (engine: Engine, config: ClientConfig): string => {
  const { proxy, state_folder: _place, tor, ...rest } = config
  const { control_password: password, ...told } = tor
  const secrets = { proxy: proxy !== null, control_password: password !== null }
  return digestOf(engine, canonicalBytes({ ...rest, tor: told, secrets }))
}

/**
 * Looks through what the program needs: without what it needs to run and to reach a server it ends here, with one list;
 * what else is missing is logged, in one list too, and is degraded for this life.
 */
const checkNeeds = (
  { config, invitation }: ClientSettings,
  made: ConfigurationMade,
  problems: ReadonlyArray<string>
) =>
  Effect.gen(function* () {
    const findings = findNeeds({
      stateFolder: config.state_folder,
      // Where root could not be given up, it is not yet known whose the folder is to be.
      looksIntoFolder: problems.length === 0,
      bwrap: config.bwrap,
      knowsServer: config.server !== null || invitation !== null,
      environment: process.env
    })
    const failed = findings.filter(({ state }) => state === "failed")
    if (failed.length + problems.length > 0)
      return yield* misconfigured(...problems, ...failed.map(({ mend, reason }) => `${reason}: ${mend}`))
    const missing = findings.filter(({ state }) => state === "degraded")
    if (missing.length > 0) {
      const list = missing.map(({ mend, reason, what }) => `  - ${reason} (${what}): ${mend}`)
      yield* Effect.logWarning(["the client runs, but refuses what needs the following:", ...list].join("\n"))
    }
    if (made._tag === "Made") yield* Effect.logInfo(`a configuration file was made: ${made.path}`)
    if (made._tag === "Failed")
      yield* Effect.logWarning(`no configuration file could be made, defaults are in force: ${made.reason}`)
    return [
      ...missing.map(({ mend, reason }) => condition("program_missing", `${reason}: ${mend}`)),
      ...(made._tag === "Failed" ? [condition("configuration_unwritten", made.reason)] : [])
    ]
  })

/** Starts the tree, with the control socket for `postern ps` on this machine, which wants to look at all of it. */
const startClient = (settings: ClientSettings, found: Found) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const { config, configurationDigest } = settings
    const started = yield* Deferred.make<ActorSystem>()
    const withSystem = <A>(ask: (system: ActorSystem) => Effect.Effect<A>) =>
      Effect.flatMap(Deferred.await(started), ask)
    const rotate = yield* rotateKey(
      withSystem((system) =>
        Effect.andThen(
          Effect.ignore(system.ref(MainLoopKey).tell("Nudge")),
          config.agent.enabled ? Effect.ignore(system.ref(SmartAgentKey).tell("Rotated")) : Effect.void
        )
      )
    )
    const handlers = {
      [rotateRequest]: rotate,
      inspect: withSystem((system) => system.inspect()),
      doctor: withSystem((system) => selfReport(system, config.agent.enabled)),
      status: withSystem((system) => Effect.orElseSucceed(system.ref(MainLoopKey).ask("Status"), () => null)),
      history: withSystem((system) => Effect.orElseSucceed(system.ref(HistorianKey).ask("View"), () => null)),
      health: withSystem((system) =>
        Effect.orElseSucceed(
          Effect.map(system.ref(HealthLoopKey).ask("Reports"), (reports) => reports.at(-1) ?? null),
          () => null
        )
      )
    }
    const control = ChildSpec.make({
      key: ControlGatewayKey,
      shutdownMs: 500,
      behaviour: controlGateway({ stateFolder: config.state_folder, handlers })
    })
    const system = yield* ActorSystem.make({
      name: "client",
      root: clientTree(
        {
          config,
          configurationDigest,
          settingsDigest: settingsDigest(engine, config),
          trust: trustOptions(settings),
          hasAgent: config.agent.enabled,
          ...found
        },
        [
          ...(config.agent.enabled ? [agentBranch(config.agent), agentLocal(config.state_folder)] : []),
          control
        ]
      )
    })
    yield* Deferred.succeed(started, system)
    return system
  })

/** The tree, from its start to its end. */
const runTree = (settings: ClientSettings, found: Found) =>
  Effect.gen(function* () {
    const manager = yield* ServiceManager
    const identity = yield* Identity
    yield* sweepLeftovers
    const system = yield* startClient(settings, found)
    // Before the tree itself: the running job.
    yield* Effect.addFinalizer(() => Effect.andThen(manager.stopping, drainClient(system)))
    yield* manager.ready
    const engine = engineText(yield* CryptoEngine)
    yield* Effect.logInfo(`${software} runs as ${identity.id}, with ${engine}`)
    yield* settings.once
      ? Effect.raceFirst(waitOnce(system), untilTerminated("client", system))
      : untilTerminated("client", system)
  })

/** What keeps the client from running under its warden; a warden that says nothing is no matter of settings. */
const problemsOf = (settled: Result.Result<unknown, { readonly _tag: string }>): ReadonlyArray<string> =>
  Result.isFailure(settled) && settled.failure instanceof Misconfigured ? settled.failure.problems : []

/** Starts the client and waits; it is stopped in order when the fiber is interrupted. */
export const runClient = (settings: ClientSettings, entry: URL, made: ConfigurationMade = { _tag: "Kept" }) =>
  Effect.gen(function* () {
    const settled = yield* Effect.result(settleUnderWarden(settings, entry))
    const standing = yield* checkNeeds(settings, made, problemsOf(settled))
    const { surroundings, entry: reached } = yield* Effect.fromResult(settled)
    yield* lockState(settings.config.state_folder).pipe(
      // The client of a warden that was killed is on its way out.
      Effect.retry({ while: ({ busy }) => busy, schedule: lockAgain }),
      Effect.mapError((error) => misconfigured(error.message))
    )
    const local = yield* Layer.build(ClientServices(settings, reached, surroundings)).pipe(
      Effect.mapError((error) =>
        misconfigured("message" in error && error.message !== "" ? error.message : String(error))
      )
    )
    yield* Effect.gen(function* () {
      const addresses = yield* bootstrapAddresses(settings)
      const transport = yield* transportOf(settings.config)
      const link = SignedLink({
        transport,
        addresses,
        enrolAddresses: settings.invitation?.enrol_addresses ?? (yield* keptEnrolAddresses),
        isTunnelled: isTunnelledBy(settings.config)
      })
      const agent = AgentServices(settings.config.agent, yield* routesOf(settings.config))
      yield* Effect.provide(
        runTree(settings, { servers: addresses, standing }),
        Layer.provideMerge(agent, link)
      )
    }).pipe(Effect.provideContext(local))
  }).pipe(Effect.scoped, Effect.provide(programLog(logOptions(settings.config))))

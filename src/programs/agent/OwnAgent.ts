/**
 * An agent of this process: the device's keys, ledger, link and trust as a client has them, and a tree without lanes and
 * jail. Databases are served by the calling thread: it has little to write.
 */
import { Effect, Layer, Schedule, type Scope } from "effect"
import { AgentInboxKey, SmartAgentKey, TrustKeeperKey } from "../../actors/ClientKeys.ts"
import { keptEnrolAddresses } from "../../actors/EnrolAddresses.ts"
import { AgentTrustCell } from "../../adapters/AgentTrustCell.ts"
import { makeActorDesk } from "../../adapters/agent/ActorDesk.ts"
import { ChosenEngine } from "../../adapters/ChosenEngine.ts"
import { FileIdentity } from "../../adapters/FileIdentity.ts"
import { ledgerDeviceClock } from "../../adapters/LedgerDeviceClock.ts"
import { LinuxHost } from "../../adapters/LinuxHost.ts"
import { SealedOnionAccess } from "../../adapters/SealedOnionAccess.ts"
import { SignedLink } from "../../adapters/SignedLink.ts"
import { SqliteLedgerInProcess } from "../../adapters/SqliteLedger.ts"
import { lockState } from "../../adapters/StateLock.ts"
import { SystemdNotify } from "../../adapters/SystemdNotify.ts"
import { SystemEntropy } from "../../adapters/SystemEntropy.ts"
import { openInProcess } from "../../adapters/sqlite/InProcessDatabase.ts"
import { agentDatabase } from "../../adapters/sqlite/messages/AgentDatabase.ts"
import { makeAgentStore } from "../../adapters/sqlite/SqliteAgentStore.ts"
import { ActorSystem } from "../../kernel/index.ts"
import { AgentStore } from "../../ports/AgentStore.ts"
import { agentTree } from "../agentTree.ts"
import { AgentServices, agentDatabasePath } from "../client/Agent.ts"
import { bootstrapAddresses, trustOptions } from "../client/Bootstrap.ts"
import { Misconfigured } from "../client/ClientSettings.ts"
import { isTunnelledBy, routesOf, transportOf, tunnelOf } from "../client/Reach.ts"
import { AgentUnavailable, attached, type OpenedAgent, type OwnAgentSettings } from "./OpenedAgent.ts"

const misconfigured = (error: unknown): AgentUnavailable => {
  if (error instanceof AgentUnavailable) return error
  const reason =
    error instanceof Misconfigured
      ? error.problems.join("\n")
      : error instanceof Error && error.message !== ""
        ? error.message
        : String(error)
  return new AgentUnavailable({ code: "misconfigured", reason })
}

/** Who is on its way up or down may open its socket, or let go of the folder. */
const lockAgain = Schedule.max([Schedule.spaced("200 millis"), Schedule.recurs(25)])

/** Keys, ledger, messages: what needs no network. */
const LocalServices = ({ config }: OwnAgentSettings) => {
  const stateFolder = config.state_folder
  const identity = FileIdentity({ stateFolder, kind: "device" }).pipe(
    Layer.provideMerge(Layer.merge(ChosenEngine(config.crypto_engine), SystemEntropy))
  )
  const messages = Layer.effect(
    AgentStore,
    Effect.map(openInProcess(agentDatabase, agentDatabasePath(stateFolder)), makeAgentStore)
  )
  return Layer.mergeAll(
    ledgerDeviceClock(),
    AgentTrustCell,
    messages,
    // Nobody waits for word of this program.
    SystemdNotify({}),
    LinuxHost({ stateFolder, requiredProcesses: [] }),
    SealedOnionAccess.pipe(Layer.provideMerge(tunnelOf(config)))
  ).pipe(Layer.provideMerge(SqliteLedgerInProcess({ stateFolder })), Layer.provideMerge(identity))
}

/** Starts the tree over all that it needs; gives the desk of its agent. */
const startTree = (settings: OwnAgentSettings) =>
  Effect.gen(function* () {
    const { appearance, config } = settings
    const addresses = yield* bootstrapAddresses(settings)
    const link = SignedLink({
      transport: yield* transportOf(config),
      addresses,
      enrolAddresses: settings.invitation?.enrol_addresses ?? (yield* keptEnrolAddresses),
      isTunnelled: isTunnelledBy(config)
    })
    const agent = AgentServices(config.agent, yield* routesOf(config))
    const services = yield* Layer.build(Layer.provideMerge(agent, link))
    const system = yield* ActorSystem.make({
      name: "agent",
      root: agentTree({ config, appearance, trust: trustOptions(settings) })
    }).pipe(Effect.provideContext(services))
    const desk = yield* makeActorDesk({
      agent: system.ref(SmartAgentKey),
      inbox: system.ref(AgentInboxKey),
      trust: system.ref(TrustKeeperKey)
    })
    const ended = Effect.flatMap(system.terminated, (end) =>
      Effect.fail(
        new AgentUnavailable({
          code: "failed",
          reason: `the agent gave up${"reason" in end ? `: ${end.reason}` : ""}`
        })
      )
    )
    return { desk, isOwn: true, ended } satisfies OpenedAgent
  })

/** Locks the folder and runs an agent on it until the scope closes; where another program was quicker, takes its agent. */
export const runOwnAgent = (
  settings: OwnAgentSettings
): Effect.Effect<OpenedAgent, AgentUnavailable, Scope.Scope> =>
  Effect.gen(function* () {
    const stateFolder = settings.config.state_folder
    const locked = lockState(stateFolder).pipe(
      Effect.as(undefined),
      Effect.catchIf(
        ({ busy }) => busy,
        (error) =>
          Effect.flatMap(attached(stateFolder), (other) =>
            other === undefined ? Effect.fail(error) : Effect.succeed(other)
          )
      )
    )
    const other = yield* Effect.retry(locked, {
      while: (error) => error._tag === "StateLocked" && error.busy,
      schedule: lockAgain
    }).pipe(
      Effect.mapError((error) =>
        error._tag === "StateLocked" && error.busy
          ? new AgentUnavailable({
              code: "in_use",
              reason: `${error.message}. It runs no agent: see agent.enabled`
            })
          : misconfigured(error)
      )
    )
    if (other !== undefined) return other
    const local = yield* Effect.mapError(Layer.build(LocalServices(settings)), misconfigured)
    return yield* startTree(settings).pipe(Effect.provideContext(local), Effect.mapError(misconfigured))
  })

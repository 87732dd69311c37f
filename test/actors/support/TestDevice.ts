/** A whole device on a virtual machine: the real tree and ledger, everything else simulated. It can be crashed. */
import { Effect, Exit, Layer, Random, Redacted, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import type { TrustOptions } from "../../../src/actors/TrustKeeper.ts"
import { AgentTrustCell } from "../../../src/adapters/AgentTrustCell.ts"
import { IdentityOfNodeKeys } from "../../../src/adapters/FileIdentity.ts"
import { ledgerDeviceClock } from "../../../src/adapters/LedgerDeviceClock.ts"
import { NodeKeys } from "../../../src/adapters/NodeKeys.ts"
import { SealedOnionAccess } from "../../../src/adapters/SealedOnionAccess.ts"
import { SqliteHistoryOver } from "../../../src/adapters/SqliteHistory.ts"
import { SqliteLedgerOver } from "../../../src/adapters/SqliteLedger.ts"
import { type DatabaseSync, openDatabase } from "../../../src/adapters/sqlite/Database.ts"
import { ActorSystem, type AnySpec, type TraceEvent } from "../../../src/kernel/index.ts"
import { TestKit } from "../../../src/kernel/testing/TestKit.ts"
import { CryptoEngine } from "../../../src/ports/CryptoEngine.ts"
import type { DeviceClock } from "../../../src/ports/DeviceClock.ts"
import type { Entropy } from "../../../src/ports/Entropy.ts"
import { Ledger, type LedgerError } from "../../../src/ports/Ledger.ts"
import { ServerLink } from "../../../src/ports/ServerLink.ts"
import { NoTunnel, type Tunnel } from "../../../src/ports/Tunnel.ts"
import { sweepLeftovers } from "../../../src/programs/clientSweep.ts"
import { clientTree } from "../../../src/programs/clientTree.ts"
import { ClientConfig } from "../../../src/schemas/ClientConfig.ts"
import { SeededEntropy } from "../../crypto/SeededEntropy.ts"
import { admissionOf, deviceKeys, engine, signAdmission } from "./Parties.ts"
import { ScriptedServer } from "./ScriptedServer.ts"
import { SimulatedHost, SimulatedHostLayer } from "./SimulatedHost.ts"

/** Called before and after each call of the ledger that changes something. */
export type LedgerTap = (method: string, moment: "before" | "after") => Effect.Effect<void>

const changing = new Set([
  "accept",
  "advance",
  "begin",
  "requeue",
  "conclude",
  "rememberCancel",
  "putOutput",
  "dropOutput",
  "acknowledge",
  "setNote"
])

/** The ledger with a tap on every change, dead as soon as its device is, and poisoned as the test says. */
const tapped = (
  ledger: Ledger["Service"],
  alive: () => boolean,
  tap: LedgerTap,
  poison: (method: string) => boolean
): Ledger["Service"] => {
  const guard = <A>(effect: Effect.Effect<A, LedgerError>, name = "") =>
    Effect.suspend(() => {
      if (!alive()) return Effect.never
      return poison(name) ? Effect.die(new Error(`simulated defect in ${name}`)) : effect
    })
  const entries = Object.entries(ledger).map(([name, member]) => {
    if (Effect.isEffect(member)) return [name, guard(member as Effect.Effect<unknown, LedgerError>, name)]
    if (typeof member !== "function") return [name, member]
    const call = member as (...args: Array<unknown>) => Effect.Effect<unknown, LedgerError>
    if (!changing.has(name)) return [name, (...args: Array<unknown>) => guard(call(...args), name)]
    return [
      name,
      (...args: Array<unknown>) =>
        tap(name, "before").pipe(
          Effect.andThen(guard(call(...args), name)),
          Effect.tap(() => tap(name, "after")),
          Effect.flatMap((value) => guard(Effect.succeed(value)))
        )
    ]
  })
  return Object.fromEntries(entries) as Ledger["Service"]
}

export interface DeviceOptions {
  readonly config?: Partial<Schema.Codec.Encoded<typeof ClientConfig>>
  readonly trust?: TrustOptions
  readonly extras?: ReadonlyArray<AnySpec<never>>
  readonly tap?: LedgerTap
  /** Accepted from the start; default true. */
  readonly accepted?: boolean
  /** Where the server says that newcomers reach it. */
  readonly enrolAddresses?: ReadonlyArray<string>
  /** The way to a server other than the scripted one. */
  readonly link?: (
    alive: () => boolean
  ) => Layer.Layer<ServerLink, never, NodeKeys | CryptoEngine | Entropy | DeviceClock>
  readonly entropy?: Layer.Layer<Entropy>
  /** A way through Tor; default none. */
  readonly tunnel?: Layer.Layer<Tunnel>
  /** Of the jitter; the same in every run, so that a test does not depend on the day's luck. */
  readonly seed?: number
  /** Hears of everything that happens, besides {@link TestDevice.trace}. */
  readonly onTrace?: (event: TraceEvent) => void
}

export const configOf = (changes: DeviceOptions["config"] = {}): ClientConfig =>
  Schema.decodeSync(ClientConfig)({ state_folder: "/sim", ...changes })

const quietTurns = 20

/** A device's machine: what survives its program. */
export class TestDevice {
  readonly server = new ScriptedServer()
  readonly host = new SimulatedHost()
  readonly database: DatabaseSync = openDatabase(":memory:")
  /** Its history. */
  readonly memories: DatabaseSync = openDatabase(":memory:")
  readonly trace: Array<TraceEvent> = []
  readonly options: DeviceOptions
  tap: LedgerTap
  settingsDigest = "sha256:settings"
  /** Ledger methods whose next use is a defect, with how often. */
  readonly poison = new Map<string, number>()
  system: ActorSystem | undefined = undefined
  ledger: Ledger["Service"] | undefined = undefined
  private life = { alive: false, scope: undefined as Scope.Closeable | undefined }

  constructor(options: DeviceOptions = {}) {
    this.options = options
    this.server.enrolAddresses = options.enrolAddresses ?? []
    this.tap = options.tap ?? (() => Effect.void)
  }

  /** Gives the disk back. */
  close(): void {
    this.database.close()
    this.memories.close()
  }

  private poisons(method: string): boolean {
    const left = this.poison.get(method) ?? 0
    if (left > 0) this.poison.set(method, left - 1)
    return left > 0
  }

  private observe(event: TraceEvent): void {
    if (this.options.onTrace === undefined) this.trace.push(event)
    else this.options.onTrace(event)
  }

  /** Starts the program: one life of it, on what the last one left. */
  readonly start = Effect.gen({ self: this }, function* () {
    const life = { alive: true, scope: yield* Scope.make() }
    this.life = life
    const alive = () => life.alive
    const base = Layer.mergeAll(
      Layer.succeed(CryptoEngine, engine),
      Layer.succeed(NodeKeys, deviceKeys),
      this.options.entropy ?? SeededEntropy("test", "device")
    )
    const stored = Layer.effect(
      Ledger,
      Effect.map(Ledger, (ledger) =>
        tapped(
          ledger,
          alive,
          (method, moment) => this.tap(method, moment),
          (method) => this.poisons(method)
        )
      )
    ).pipe(Layer.provide(SqliteLedgerOver(this.database)), Layer.provideMerge(base))
    const machine = Layer.mergeAll(
      IdentityOfNodeKeys,
      ledgerDeviceClock(0),
      AgentTrustCell,
      SimulatedHostLayer(this.host),
      SealedOnionAccess.pipe(Layer.provideMerge(this.options.tunnel ?? NoTunnel)),
      SqliteHistoryOver(this.memories)
    ).pipe(Layer.provideMerge(stored))
    const link = this.options.link?.(alive) ?? Layer.succeed(ServerLink, this.server.link(alive))
    const layer = link.pipe(Layer.provideMerge(machine))
    const root = clientTree(
      {
        config: configOf(this.options.config),
        trust: this.options.trust ?? { invitation: null, name: null },
        configurationDigest: null,
        settingsDigest: this.settingsDigest,
        servers: ["http://127.0.0.1:8470"],
        standing: []
      },
      this.options.extras ?? []
    )
    const context = yield* Layer.buildWithScope(layer, life.scope)
    this.ledger = yield* Effect.provideContext(Effect.service(Ledger), context)
    if (this.options.accepted !== false && this.server.admission === null) {
      this.server.admission = signAdmission(admissionOf(this.ledger.incarnation))
      this.server.status = "accepted"
    }
    yield* Effect.provideContext(sweepLeftovers, context)
    this.system = yield* ActorSystem.make({ root, trace: (event) => this.observe(event) }).pipe(
      Effect.provideContext(context),
      Effect.provideService(Scope.Scope, life.scope)
    )
    return this.system
  }).pipe((start) => Effect.suspend(() => Random.withSeed(start, this.options.seed ?? 1)))

  /** The program is gone between two moments: nothing it still does reaches ledger or network. */
  readonly crash = Effect.suspend(() => {
    const { scope, system } = this.detach()
    return Effect.gen(function* () {
      if (system !== undefined) yield* TestKit.stop(system)
      if (scope !== undefined) yield* Scope.close(scope, Exit.void)
    })
  })

  /** The same, while time goes on by itself: what is left of the program ends in the background. */
  readonly crashNow = Effect.suspend(() => {
    const { scope, system } = this.detach()
    const end = system === undefined ? Effect.void : system.stop
    return Effect.asVoid(
      Effect.forkDetach(
        Effect.andThen(end, scope === undefined ? Effect.void : Scope.close(scope, Exit.void))
      )
    )
  })

  /** The program stops in order. */
  readonly stop = Effect.suspend(() => {
    const { scope } = this.life
    const system = this.system
    this.system = undefined
    return Effect.gen(function* () {
      if (system !== undefined) yield* TestKit.stop(system)
      if (scope !== undefined) yield* Scope.close(scope, Exit.void)
    })
  })

  private detach() {
    const { scope } = this.life
    const system = this.system
    this.life.alive = false
    this.system = undefined
    return { scope, system }
  }

  /** Lets everything happen that can happen now: until nothing was heard of for some turns. */
  private readonly settle = Effect.gen({ self: this }, function* () {
    let events = -1
    for (let quiet = 0; quiet < quietTurns; quiet++) {
      yield* Effect.yieldNow
      const seen = this.trace.length + this.server.polls.length
      if (seen !== events) quiet = 0
      events = seen
    }
  })

  /** Moves virtual time until the condition holds. */
  readonly until = (condition: () => boolean, what: string, limitMs = 600_000, stepMs = 250) =>
    TestKit.advanceUntil(() => Effect.map(this.settle, condition), { stepMs, limitMs, what })

  /** Moves virtual time on. */
  readonly pass = (ms: number, stepMs = 1_000) =>
    Effect.gen({ self: this }, function* () {
      yield* this.settle
      for (let passed = 0; passed < ms; passed += stepMs) {
        yield* TestClock.adjust(Math.min(stepMs, ms - passed))
        yield* this.settle
      }
    })
}

/** A started device that is stopped with the test. */
export const deviceUnderTest = (options: DeviceOptions = {}) =>
  Effect.acquireRelease(
    Effect.gen(function* () {
      const device = new TestDevice(options)
      yield* device.start
      return device
    }),
    (device) =>
      Effect.andThen(
        device.stop,
        Effect.sync(() => device.close())
      )
  )

export { Redacted }

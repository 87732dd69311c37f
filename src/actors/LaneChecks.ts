/**
 * What must hold before an order goes on, and how a lane's work says that it does not: refused for good, put off, or
 * stopped by somebody.
 */
import { Deferred, Effect, Result, Schema } from "effect"
import type { RpcGroup } from "effect/rpc"
import type { ActorRef } from "../kernel/index.ts"
import { CryptoEngine } from "../ports/CryptoEngine.ts"
import { DeviceClock } from "../ports/DeviceClock.ts"
import { HostProbe } from "../ports/HostProbe.ts"
import { Ledger, type LedgerOrder } from "../ports/Ledger.ts"
import { PackageStore } from "../ports/PackageStore.ts"
import type { LinkError } from "../ports/ServerLink.ts"
import { Limits } from "../schemas/Limits.ts"
import type { JailGuardProtocol } from "../schemas/protocols/JailGuard.ts"
import { StopReason } from "../schemas/protocols/Lane.ts"
import type { NotaryProtocol } from "../schemas/protocols/Notary.ts"
import type { TrustKeeperProtocol } from "../schemas/protocols/TrustKeeper.ts"
import { RefusalCode } from "../schemas/Refusals.ts"
import type { OrderProgress } from "../schemas/WorkOrder.ts"
import type { DownloadBounds } from "./Download.ts"
import { nowMs } from "./LaneConclude.ts"
import { authenticate, isAbove } from "./OrderChecks.ts"
import type { DeviceAllowance } from "./RunVerdict.ts"
import { linkProblem } from "./TrustSteps.ts"

/** What a lane's work needs to know of its device and whom it talks to. */
export interface LaneEnvironment {
  readonly allowance: DeviceAllowance
  readonly download: DownloadBounds
  readonly diskReserveBytes: number
  readonly notary: ActorRef<RpcGroup.Rpcs<typeof NotaryProtocol>>
  readonly jailGuard: ActorRef<RpcGroup.Rpcs<typeof JailGuardProtocol>>
  readonly trust: ActorRef<RpcGroup.Rpcs<typeof TrustKeeperProtocol>>
  /** A piece of output waits in the outbox: it is to be sent now, not when the job has ended. */
  readonly outputStored: Effect.Effect<void>
  /** Tells lane and server how far the order is. */
  readonly report: (progress: OrderProgress) => Effect.Effect<void>
}

/** The order is to be refused, with a receipt. */
export class Refuse extends Schema.TaggedError<Refuse>()("Refuse", {
  code: RefusalCode,
  detail: Schema.NullOr(Schema.String)
}) {}

/** Something is missing now; the order stays where the ledger has it. */
export class Later extends Schema.TaggedError<Later>()("Later", {
  code: Schema.Literals([
    "unreachable",
    "too_slow",
    "disk_low",
    "outbox_full",
    "jail_unknown",
    "clock_unproven",
    "root_expired",
    "not_enrolled",
    "device_stopped"
  ]),
  pauseMs: Schema.Finite,
  detail: Schema.String
}) {}

/** Somebody asked for the order to stop before its command was started. */
export class Stop extends Schema.TaggedError<Stop>()("Stop", { reason: StopReason }) {}

/** Pauses before an order is looked at again. */
export const pauses = {
  network: 5_000,
  slow: 60_000,
  disk: 30_000,
  outbox: 10_000,
  jail: 1_000,
  clock: 2_000,
  trust: 60_000
}

/** What the refusal says of an order that expires while it waits for this. */
export const troubles: Readonly<Partial<Record<Later["code"], RefusalCode>>> = {
  too_slow: "payload_too_slow",
  disk_low: "disk_low",
  outbox_full: "outbox_full"
}

export const later = (code: Later["code"], pauseMs: number, detail: string) =>
  new Later({ code, pauseMs, detail })

export const fromLink = (error: LinkError) =>
  error._tag === "ServerRefused" && (error.code === "not_found" || error.code === "gone")
    ? new Refuse({ code: "payload_missing", detail: error.message })
    : later(
        "unreachable",
        error._tag === "ServerRefused" ? Math.max(error.retryAfterMs ?? 0, pauses.network) : pauses.network,
        linkProblem(error)
      )

/** Runs a step that is given up as soon as somebody asks the order to stop. */
export const haltable = <A, E, R>(step: Effect.Effect<A, E, R>, stop: Deferred.Deferred<StopReason>) =>
  Effect.raceFirst(
    step,
    Effect.flatMap(Deferred.await(stop), (reason) => Effect.fail(new Stop({ reason })))
  )

/**
 * Whether the operators still stand behind the order: a root that came since may have revoked its signer, a decision the
 * device itself.
 */
const checkTrust = Effect.fnUntraced(function* (row: LedgerOrder, environment: LaneEnvironment) {
  const engine = yield* CryptoEngine
  const { doubtful, heard, held, phase } = yield* environment.trust.ask("View")
  if (phase === "rejected" || phase === "revoked")
    return yield* new Refuse({ code: "not_accepted", detail: phase })
  if (held === null || phase !== "accepted")
    return yield* later("not_enrolled", pauses.trust, "the device is not accepted now")
  if (!heard) return yield* later("clock_unproven", pauses.clock, "no poll has been answered yet")
  if (doubtful !== null && !isAbove(row.order, doubtful))
    return yield* new Refuse({ code: "ledger_doubtful", detail: null })
  if (held.root.expires_at_ms <= (yield* nowMs))
    return yield* later("root_expired", pauses.trust, "the trust root has expired")
  const authentic = authenticate(engine, held.root, row.envelope)
  if (Result.isFailure(authentic))
    return yield* new Refuse({ code: authentic.failure.code, detail: authentic.failure.detail })
})

/** What must hold before an order is begun, each time it is taken up. */
export const mayBegin = Effect.fnUntraced(function* (
  row: LedgerOrder,
  stop: Deferred.Deferred<StopReason>,
  trouble: RefusalCode | null,
  environment: LaneEnvironment
) {
  const ledger = yield* Ledger
  if (yield* ledger.isCanceled(row.order.id)) return yield* new Stop({ reason: "canceled_by_operator" })
  if (yield* Deferred.isDone(stop)) return yield* new Stop({ reason: yield* Deferred.await(stop) })
  const clock = yield* DeviceClock
  if (!(yield* clock.proven))
    return yield* later("clock_unproven", pauses.clock, "the server has not yet told the time")
  if (row.order.expires_at_ms <= (yield* nowMs)) {
    return yield* new Refuse({
      code: trouble ?? "expired",
      detail: trouble === null ? null : "until it expired"
    })
  }
  yield* checkTrust(row, environment)
})

/** Room for ciphertext, unpacked package and what is kept free. */
export const checkDisk = Effect.fnUntraced(function* (row: LedgerOrder, environment: LaneEnvironment) {
  const probe = yield* HostProbe
  const store = yield* PackageStore
  const { payload } = row.order
  const missing = payload.size_bytes - (yield* store.downloaded(row.order.id))
  const needed = environment.diskReserveBytes + Math.max(missing, 0) + payload.unpacked_bytes
  const free = yield* probe.freeDiskBytes.pipe(
    Effect.mapError((error) => later("disk_low", pauses.disk, error.reason))
  )
  if (free < needed)
    return yield* later("disk_low", pauses.disk, `${free} bytes are free, ${needed} are needed`)
})

/** The jail's isolation, once there is a jail; and room for what the run will give. */
export const checkRun = Effect.fnUntraced(function* (environment: LaneEnvironment) {
  const ledger = yield* Ledger
  const { problem, report } = yield* environment.jailGuard.ask("Verdict")
  if (problem !== null) return yield* new Refuse({ code: "no_jail", detail: problem })
  if (report === null) return yield* later("jail_unknown", pauses.jail, "the jail has not been checked yet")
  const waiting = yield* ledger.outboxSize
  if (waiting.items >= Limits.outboxItems) {
    return yield* later("outbox_full", pauses.outbox, `${waiting.items} results wait to be sent`)
  }
  return report.isolation
})

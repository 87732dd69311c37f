/**
 * `postern jobs submit --group`: one payload, one signed plan, and an order for each device, signed here.
 *
 * @module
 */
import { closeSync, openSync, readSync } from "node:fs"
import { Clock, Effect, Result } from "effect"
import { groupRecords } from "../../adapters/operator/Groups.ts"
import { ManagementClient, type ServerProblem } from "../../adapters/operator/ManagementClient.ts"
import { OperatorHome, readJson } from "../../adapters/operator/OperatorHome.ts"
import type { OperatorKeys } from "../../adapters/operator/OperatorKeys.ts"
import { SentOrder, sentOrderFile } from "../../adapters/operator/Records.ts"
import {
  type RolloutRecord,
  removeRolloutRecord,
  rolloutRecord,
  writeRolloutRecord
} from "../../adapters/operator/RolloutRecords.ts"
import { findAgeHeaderEnd, parseAgeHeader } from "../../crypto/AgeHeader.ts"
import { openUnverified } from "../../crypto/Documents.ts"
import { base32Token, uuidV7 } from "../../crypto/Unguessable.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { Entropy } from "../../ports/Entropy.ts"
import { Name, OrderId } from "../../schemas/Ids.ts"
import { Limits } from "../../schemas/Limits.ts"
import { type PlannedDevice, RolloutId, RolloutPlan } from "../../schemas/Rollout.ts"
import { confirm } from "./Ask.ts"
import { failure, usage } from "./Failure.ts"
import { type OrderPlan, type OrderValues, sendOrder, submitOrder } from "./Orders.ts"
import { type ProvedPackage, packageLines, provePackage } from "./PackagePlan.ts"
import { statusLine } from "./Progress.ts"
import {
  type PhaseDraft,
  phaseRows,
  phaseTableHeader,
  planPhases,
  type RolloutValues,
  requireLifetime
} from "./RolloutPhases.ts"
import { Screen } from "./Screen.ts"
import { requireRoot } from "./Settings.ts"
import { properties, showDuration, table } from "./Text.ts"
import { unlocked } from "./Unlock.ts"
import { uploadPayload } from "./Upload.ts"

/** How many keys a package is encrypted to. It does not tell to whose. */
export const countRecipients = (path: string) =>
  Effect.try({
    try: () => {
      const header = new Uint8Array(Limits.ageHeaderBytes)
      const file = openSync(path, "r")
      try {
        const read = header.subarray(0, readSync(file, header))
        const end = findAgeHeaderEnd(read)
        if (end === undefined) throw new Error("it has no age header")
        return parseAgeHeader(read.subarray(0, end)).stanzas.length
      } finally {
        closeSync(file)
      }
    },
    catch: (error) =>
      failure(`Could not read the package ${path}: ${error instanceof Error ? error.message : error}`)
  })

/** A package that was built for fewer keys than the rollout has devices would be refused by some of them. */
const requireRecipients = (path: string, group: string, devices: number) =>
  Effect.flatMap(countRecipients(path), (recipients) =>
    recipients > devices
      ? Effect.void
      : Effect.fail(
          failure(
            `${path} is encrypted to ${recipients} keys, but the group ${group} has ${devices} devices, and you are one more. Build it for the group: postern package build FOLDER --group ${group}`
          )
        )
  )

const confirmRollout = (
  proved: ProvedPackage,
  draft: {
    readonly group: string
    readonly phases: ReadonlyArray<PhaseDraft>
    readonly maximumFailures: number
  },
  flags: OrderValues,
  yes: boolean
) =>
  Effect.gen(function* () {
    const screen = yield* Screen
    if (yes && !screen.errIsTerminal) return
    const terms = [
      ["group", draft.group],
      ["lane", flags.service ? "service" : "job"],
      ["not begun after", showDuration(flags.expires)],
      ["failures", `at most ${draft.maximumFailures}, else it is paused`],
      ["results for", flags.sealed ? "you alone" : "you and the server"]
    ] as const
    yield* screen.write("err", properties([...packageLines(proved), ...terms]))
    yield* screen.write("err", `\n${table(phaseTableHeader, phaseRows(draft.phases))}\n`)
    if (yes) return
    const isSure = yield* confirm(
      "Sign this?",
      "There is no terminal to ask. Look at it with postern package inspect, then say --yes"
    )
    if (!isSure) return yield* failure("Nothing was signed")
  })

const planDevices = (phase: PhaseDraft) =>
  Effect.forEach(phase.records, ({ device }) =>
    Effect.gen(function* () {
      return { device, order: OrderId.make(yield* uuidV7(yield* Entropy)) } satisfies PlannedDevice
    })
  )

/** Signs a plan and keeps it, before anybody else has it. */
const signPlan = (
  keys: OperatorKeys,
  proved: ProvedPackage,
  draft: {
    readonly group: Name
    readonly phases: ReadonlyArray<PhaseDraft>
    readonly maximumFailures: number
  },
  flags: OrderValues
) =>
  Effect.gen(function* () {
    const { root } = yield* requireRoot
    const nowMs = yield* Clock.currentTimeMillis
    const id = RolloutId.make(`rol_${yield* base32Token(yield* Entropy, 128)}`)
    const phases = yield* Effect.forEach(draft.phases, (phase) =>
      Effect.map(planDevices(phase), (devices) => {
        const { soak_ms, success_percent, timeout_ms } = phase
        return { soak_ms, success_percent, timeout_ms, devices }
      })
    )
    const plan: RolloutPlan = {
      type: "postern/rollout/v1",
      id,
      name: proved.manifest.name,
      group: draft.group,
      root_version: root.version,
      issued_at_ms: nowMs,
      expires_at_ms: nowMs + flags.expires,
      lane: flags.service ? "service" : "job",
      payload: proved.payload,
      maximum_failures: draft.maximumFailures,
      phases
    }
    const { digest, envelope } = keys.sign("rollout", plan)
    const record: RolloutRecord = {
      type: "postern/rollout-record/v1",
      id,
      digest,
      envelope,
      sealed: flags.sealed,
      submitted: false,
      ended: false
    }
    yield* writeRolloutRecord(record)
    return { plan, record }
  })

const orderPlan = (plan: RolloutPlan, { device, order }: PlannedDevice, sealed: boolean): OrderPlan => ({
  device,
  payload: plan.payload,
  name: plan.name,
  lane: plan.lane,
  lifetimeMs: plan.expires_at_ms - plan.issued_at_ms,
  deadlineMs: plan.expires_at_ms - plan.issued_at_ms,
  sealed,
  rollout: { id: plan.id, order, expiresAtMs: plan.expires_at_ms }
})

/** The device's order: as it was signed before where that still fits, else signed anew under the same id. */
const submitPlanned = (keys: OperatorKeys, plan: RolloutPlan, planned: PlannedDevice, sealed: boolean) =>
  Effect.gen(function* () {
    const home = yield* OperatorHome
    const sent = yield* readJson(sentOrderFile(planned.order), SentOrder)
    if (sent !== undefined) {
      const result = yield* Effect.result(home.alone(sendOrder(sent, plan.root_version)))
      if (Result.isSuccess(result)) return
      const problem = result.failure
      if (problem._tag !== "ServerProblem" || problem.code !== "sequence_taken") return yield* problem
    }
    yield* submitOrder(keys, orderPlan(plan, planned, sealed))
  })

const resumable = (id: RolloutId) => (error: { readonly message: string }) =>
  failure(
    `${error.message.replace(/\.$/, "")}. The rollout can be sent on, which is safe: postern jobs submit --resume ${id}`
  )

const isVoid = ({ kind }: ServerProblem): boolean => kind === "conflict" || kind === "refused"

/** Gives the plan to the server. */
const openPlan = (record: RolloutRecord) =>
  Effect.flatMap(ManagementClient, (client) =>
    client.call("submit the rollout", (api) => api.rollouts.open({ payload: record.envelope }))
  ).pipe(
    Effect.mapError((problem) =>
      problem._tag === "ServerProblem" && isVoid(problem) ? problem : resumable(record.id)(problem)
    )
  )

/** The same for the first time. A plan that the server does not take is void then: nobody has it. */
const openNewPlan = (record: RolloutRecord) =>
  Effect.tapError(openPlan(record), (problem) =>
    problem._tag === "ServerProblem" ? removeRolloutRecord(record.id) : Effect.void
  )

/**
 * Gives the orders to the server; begun again, it goes on where it stopped. What the server has is the server's word, not
 * this home's: one that was restored from a backup lacks orders it had taken.
 */
const submitOrders = (keys: OperatorKeys, plan: RolloutPlan, record: RolloutRecord) =>
  Effect.scoped(
    Effect.gen(function* () {
      const client = yield* ManagementClient
      const show = yield* statusLine
      const devices = plan.phases.flatMap((phase) => phase.devices)
      const { jobs } = yield* client.call("look at the rollout's orders", (api) =>
        api.rollouts.jobs({ params: { id: plan.id } })
      )
      const there = new Set(jobs.map(({ id }) => id))
      for (const [index, planned] of devices.entries()) {
        yield* show(`signing and sending orders: ${index + 1} of ${devices.length}`)
        if (!there.has(planned.order)) yield* submitPlanned(keys, plan, planned, record.sealed)
      }
      yield* writeRolloutRecord({ ...record, submitted: true })
      return plan
    })
  )

/** A new rollout: looked at, asked about, uploaded once, signed, sent. */
export const submitGroup = (
  file: string,
  groupName: string,
  yes: boolean,
  flags: OrderValues & RolloutValues
) =>
  Effect.gen(function* () {
    if (flags.expires <= 0 || flags.expires > Limits.orderLifetimeMs)
      return yield* usage("--expires must be between 1ms and 90d")
    if (flags.deadline._tag === "Some")
      return yield* usage("--deadline is for one device: the orders of a rollout are due when they expire")
    const records = yield* groupRecords(groupName)
    const drafted = yield* planPhases(records, flags)
    yield* requireLifetime(drafted.phases, flags.expires)
    yield* requireRecipients(file, groupName, records.length)
    const keys = yield* unlocked
    const proved = yield* provePackage(file, keys)
    const draft = { group: Name.make(groupName), ...drafted }
    yield* confirmRollout(proved, draft, flags, yes)
    yield* uploadPayload(file, proved.payload)
    const { plan, record } = yield* signPlan(keys, proved, draft, flags)
    yield* openNewPlan(record)
    return yield* submitOrders(keys, plan, record).pipe(Effect.mapError(resumable(plan.id)))
  })

/** A rollout whose submission was cut off: the same plan, and whatever orders are missing. */
export const resumeGroup = (id: RolloutId) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const record = yield* rolloutRecord(id)
    if (record === undefined) return yield* failure(`No rollout ${id} was signed here`)
    const opened = openUnverified(engine, "rollout", RolloutPlan, record.envelope)
    if (Result.isFailure(opened)) return yield* failure(`The rollout ${id} is damaged in this home`)
    const keys = yield* unlocked
    yield* openPlan(record)
    return yield* submitOrders(keys, opened.success.document, record)
  })

/** Rollouts in the fleet database: their plans, and which orders wait for their phase. */
import type { Effect } from "effect"
import type { RolloutMember, RolloutRow, RolloutStore } from "../../../ports/RolloutStore.ts"
import type { DsseEnvelope } from "../../../schemas/Dsse.ts"
import type { DeviceId, Digest, OrderId } from "../../../schemas/Ids.ts"
import { Limits } from "../../../schemas/Limits.ts"
import { isEnded, type PauseReason, type RolloutId, type RolloutState } from "../../../schemas/Rollout.ts"
import type { RolloutMove } from "../../../schemas/RolloutJudgement.ts"
import type { OrderState } from "../../../schemas/WorkOrder.ts"
import type { DatabaseSync } from "../Database.ts"
import type { Audit } from "./Audit.ts"
import { fromJson, integer, integerOrNull, type Row, text, textOrNull, toJson } from "./FleetMethods.ts"

type Port = RolloutStore["Service"]

/** The port `RolloutStore` as synchronous functions. */
export type RolloutMethods = {
  readonly [K in keyof Port]: Port[K] extends (...args: infer A) => Effect.Effect<infer R, unknown>
    ? (...args: A) => R
    : never
}

const toRollout = (row: Row): RolloutRow => ({
  plan: fromJson(row, "plan"),
  envelope: fromJson(row, "envelope"),
  digest: text(row, "digest") as Digest,
  state: text(row, "state") as RolloutState,
  reason: textOrNull(row, "reason") as PauseReason | null,
  phase: integer(row, "phase"),
  phaseStartedAtMs: integerOrNull(row, "phase_started_at_ms"),
  settledAtMs: integerOrNull(row, "settled_at_ms"),
  pausedAtMs: integerOrNull(row, "paused_at_ms"),
  version: integer(row, "version"),
  controlSequence: integer(row, "control_sequence"),
  createdAtMs: integer(row, "created_at_ms"),
  createdBy: text(row, "created_by"),
  changedAtMs: integer(row, "changed_at_ms")
})

const toMember = (row: Row): RolloutMember => ({
  device: text(row, "device") as DeviceId,
  order: text(row, "job") as OrderId,
  phase: integer(row, "phase"),
  state: textOrNull(row, "state") as OrderState | null,
  excused: integer(row, "excused") === 1
})

const open = "state IN ('loading', 'running', 'paused')"

const reading = (database: DatabaseSync) => {
  const byId = database.prepare("SELECT * FROM rollouts WHERE id = ?")
  const all = database.prepare("SELECT * FROM rollouts ORDER BY created_at_ms DESC, id LIMIT ?")
  const openOnes = database.prepare(
    `SELECT * FROM rollouts WHERE ${open} ORDER BY created_at_ms DESC, id LIMIT ?`
  )
  const tally = database.prepare(
    "SELECT phase, state, excused, count(*) AS n FROM rollout_devices WHERE rollout = ? GROUP BY phase, state, excused"
  )
  const members = database.prepare("SELECT * FROM rollout_devices WHERE rollout = ? ORDER BY phase, job")
  const controls = database.prepare(
    "SELECT envelope FROM rollout_controls WHERE rollout = ? ORDER BY sequence"
  )
  const planned = database.prepare(
    "SELECT d.device, r.plan, r.state FROM rollout_devices d JOIN rollouts r ON r.id = d.rollout WHERE d.job = ?"
  )
  const openOf = database.prepare(
    `SELECT r.id FROM rollout_devices d JOIN rollouts r ON r.id = d.rollout WHERE d.job = ? AND r.${open}`
  )
  const find = (id: RolloutId) => byId.get(id) as Row | undefined
  return {
    find,
    methods: {
      rollout: (id) => {
        const row = find(id)
        return row === undefined ? null : toRollout(row)
      },
      rollouts: (onlyOpen, limit) => (onlyOpen ? openOnes : all).all(limit).map(toRollout),
      rolloutsOf: (orders) => {
        const found = orders.map((order) => openOf.get(order) as Row | undefined)
        return [...new Set(found.flatMap((row) => (row === undefined ? [] : [text(row, "id") as RolloutId])))]
      },
      rolloutTally: (id) =>
        tally.all(id).map((row) => ({
          phase: integer(row, "phase"),
          state: textOrNull(row, "state") as OrderState | null,
          excused: integer(row, "excused") === 1,
          count: integer(row, "n")
        })),
      rolloutMembers: (id) => members.all(id).map(toMember),
      rolloutControls: (id) => controls.all(id).map((row) => fromJson<DsseEnvelope>(row, "envelope")),
      plannedOrder: (order) => {
        const row = planned.get(order) as Row | undefined
        if (row === undefined) return null
        return {
          plan: fromJson(row, "plan"),
          device: text(row, "device") as DeviceId,
          ended: isEnded(text(row, "state") as RolloutState)
        }
      }
    } satisfies Partial<RolloutMethods>
  }
}

const adding = (database: DatabaseSync, find: (id: RolloutId) => Row | undefined, audit: Audit) => {
  const count = database.prepare(`SELECT count(*) AS n FROM rollouts WHERE ${open}`)
  const accepted = database.prepare("SELECT 1 AS found FROM devices WHERE device = ? AND status = 'accepted'")
  const busy = database.prepare(
    `SELECT 1 AS found FROM rollout_devices d JOIN rollouts r ON r.id = d.rollout WHERE d.device = ? AND r.${open}`
  )
  const taken = database.prepare(
    "SELECT 1 AS found FROM jobs WHERE id = ? UNION ALL SELECT 1 FROM rollout_devices WHERE job = ?"
  )
  const insert = database.prepare(`
    INSERT INTO rollouts (id, digest, plan, envelope, created_at_ms, created_by, changed_at_ms)
    VALUES (?, ?, ?, ?, ?, ?, ?)`)
  const insertDevice = database.prepare(
    "INSERT INTO rollout_devices (job, rollout, device, phase) VALUES (?, ?, ?, ?)"
  )
  const addRollout: RolloutMethods["addRollout"] = (plan, envelope, digest, actor, atMs) => {
    const there = find(plan.id)
    if (there !== undefined) return text(there, "digest") === digest ? "same" : "id_taken"
    if (integer(count.get() as Row, "n") >= Limits.openRollouts) return "too_many"
    const devices = plan.phases.flatMap((phase) => phase.devices)
    if (devices.some(({ device }) => accepted.get(device) === undefined)) return "unknown_device"
    if (devices.some(({ device }) => busy.get(device) !== undefined)) return "in_rollout"
    if (devices.some(({ order }) => taken.get(order, order) !== undefined)) return "id_taken"
    insert.run(plan.id, digest, toJson(plan), toJson(envelope), atMs, actor, atMs)
    plan.phases.forEach((phase, index) => {
      for (const { device, order } of phase.devices) insertDevice.run(order, plan.id, device, index)
    })
    audit(atMs, actor, "rollout", `${plan.id} to ${plan.group}: ${plan.name}`)
    return "added"
  }
  return addRollout
}

/** What happens to a rollout's orders: given out, put back behind the gate, taken away, asked to stop. */
const gates = (database: DatabaseSync) => {
  const ofRollout = "id IN (SELECT job FROM rollout_devices WHERE rollout = ?"
  const release = database.prepare(
    `UPDATE jobs SET held = 0 WHERE ${ofRollout} AND phase <= ?) AND held = 1 AND final = 0 RETURNING device`
  )
  // A place below one that was given out since is lost: the order can't go back to waiting.
  const overtaken = database.prepare(`
    UPDATE jobs SET state = 'removed', final = 1, version = version + 1, reason = 'overtaken', changed_at_ms = ?
    WHERE ${ofRollout}) AND final = 0 AND held = 0 AND state = 'queued' AND EXISTS (SELECT 1 FROM jobs later
      WHERE later.device = jobs.device AND later.held = 0
        AND (later.root_version, later.counter) > (jobs.root_version, jobs.counter))`)
  const hold = database.prepare(
    `UPDATE jobs SET held = 1 WHERE ${ofRollout}) AND final = 0 AND held = 0 AND state = 'queued'`
  )
  const withdraw = database.prepare(`
    UPDATE jobs SET state = 'removed', final = 1, held = 0, version = version + 1, reason = ?, changed_at_ms = ?
    WHERE ${ofRollout}) AND final = 0 AND state = 'queued' AND (held = 1 OR ?)`)
  const stop = database.prepare(`
    UPDATE jobs SET stop = 1, version = version + 1, changed_at_ms = ?
    WHERE ${ofRollout}) AND final = 0 AND stop = 0 RETURNING device`)
  const devicesOf = (rows: ReadonlyArray<Row>) => rows.map((row) => text(row, "device") as DeviceId)
  return {
    release: (id: RolloutId, phase: number) => devicesOf(release.all(id, phase)),
    hold: (id: RolloutId, atMs: number) => {
      overtaken.run(atMs, id)
      hold.run(id)
    },
    /** Takes away what waits; with `everything` also what was given out but never offered. */
    withdraw: (id: RolloutId, reason: string, everything: boolean, atMs: number) =>
      void withdraw.run(reason, atMs, id, everything ? 1 : 0),
    stop: (id: RolloutId, atMs: number) => devicesOf(stop.all(atMs, id))
  }
}

/** Writes what became of a rollout, and moves its orders with it. */
const steps = (database: DatabaseSync) => {
  const gate = gates(database)
  const set = database.prepare(`
    UPDATE rollouts SET state = ?, reason = ?, phase = ?, phase_started_at_ms = ?, settled_at_ms = ?, paused_at_ms = ?,
      version = version + 1, changed_at_ms = ? WHERE id = ?`)
  const excuse = database.prepare("UPDATE rollout_devices SET excused = 1 WHERE rollout = ? AND job = ?")
  const write = (row: RolloutRow, changes: Partial<RolloutRow>, atMs: number): void => {
    const next = { ...row, ...changes }
    const { phase, phaseStartedAtMs, pausedAtMs, plan, reason, settledAtMs, state } = next
    set.run(state, reason, phase, phaseStartedAtMs, settledAtMs, pausedAtMs, atMs, plan.id)
  }
  return {
    release: (row: RolloutRow, phase: number, atMs: number) => {
      write(row, { state: "running", phase, phaseStartedAtMs: atMs, settledAtMs: null }, atMs)
      return gate.release(row.plan.id, phase)
    },
    settle: (row: RolloutRow, atMs: number) => write(row, { settledAtMs: atMs }, atMs),
    pause: (row: RolloutRow, reason: PauseReason, atMs: number) => {
      gate.hold(row.plan.id, atMs)
      write(row, { state: "paused", reason, pausedAtMs: atMs }, atMs)
    },
    /** The phase's clock stood still meanwhile. */
    resume: (row: RolloutRow, excused: ReadonlyArray<OrderId>, atMs: number) => {
      const { id } = row.plan
      const awayMs = Math.max(0, atMs - (row.pausedAtMs ?? atMs))
      const later = (at: number | null) => (at === null ? null : at + awayMs)
      for (const order of excused) excuse.run(id, order)
      const changes = {
        state: row.phase < 0 ? "loading" : "running",
        reason: null,
        pausedAtMs: null,
        phaseStartedAtMs: later(row.phaseStartedAtMs),
        settledAtMs: later(row.settledAtMs)
      } as const
      write(row, changes, atMs)
      return gate.release(id, row.phase)
    },
    abort: (row: RolloutRow, atMs: number) => {
      gate.withdraw(row.plan.id, "rollout_aborted", true, atMs)
      write(row, { state: "aborted", reason: null }, atMs)
      return gate.stop(row.plan.id, atMs)
    },
    end: (row: RolloutRow, state: "completed" | "expired", atMs: number) => {
      gate.withdraw(row.plan.id, "rollout_expired", false, atMs)
      write(row, { state, reason: null }, atMs)
    }
  }
}

const moving = (database: DatabaseSync, find: (id: RolloutId) => Row | undefined, audit: Audit) => {
  const step = steps(database)
  const take = (row: RolloutRow, move: RolloutMove, atMs: number): ReadonlyArray<DeviceId> => {
    switch (move.kind) {
      case "release":
        return step.release(row, move.phase, atMs)
      case "settle":
        step.settle(row, atMs)
        return []
      case "pause":
        step.pause(row, move.reason, atMs)
        audit(atMs, "server", `pause rollout: ${move.reason}`, row.plan.id)
        return []
      case "end":
        step.end(row, move.state, atMs)
        audit(atMs, "server", `end rollout: ${move.state}`, row.plan.id)
        return []
    }
  }
  const moveRollout: RolloutMethods["moveRollout"] = (id, version, move, atMs) => {
    const found = find(id)
    if (found === undefined) return null
    const row = toRollout(found)
    return row.version !== version || isEnded(row.state) ? null : take(row, move, atMs)
  }
  return moveRollout
}

const controlling = (database: DatabaseSync, find: (id: RolloutId) => Row | undefined, audit: Audit) => {
  const step = steps(database)
  const insert = database.prepare(
    "INSERT INTO rollout_controls (rollout, sequence, envelope) VALUES (?, ?, ?)"
  )
  const last = database.prepare(
    "SELECT envelope FROM rollout_controls WHERE rollout = ? ORDER BY sequence DESC LIMIT 1"
  )
  const count = database.prepare("SELECT count(*) AS n FROM rollout_controls WHERE rollout = ?")
  const heard = database.prepare("UPDATE rollouts SET control_sequence = ? WHERE id = ?")
  const isLast = (id: RolloutId, envelope: DsseEnvelope): boolean => {
    const row = last.get(id) as Row | undefined
    return row !== undefined && fromJson<DsseEnvelope>(row, "envelope").payload === envelope.payload
  }
  const controlRollout: RolloutMethods["controlRollout"] = (control, envelope, excused, actor, atMs) => {
    const { action, rollout: id, sequence } = control
    const found = find(id)
    if (found === undefined) return { outcome: "unknown" }
    const row = toRollout(found)
    if (sequence <= row.controlSequence) return { outcome: isLast(id, envelope) ? "same" : "stale" }
    if (isEnded(row.state)) return { outcome: "ended" }
    if (action === "resume" && row.state !== "paused") return { outcome: "not_paused" }
    // An abort is always heard.
    const isFull = integer(count.get(id) as Row, "n") >= Limits.rolloutControls
    if (action !== "abort" && isFull) return { outcome: "full" }
    insert.run(id, sequence, toJson(envelope))
    heard.run(sequence, id)
    audit(atMs, actor, `${action} rollout`, id)
    if (action === "resume") return { outcome: "done", devices: step.resume(row, excused, atMs) }
    if (action === "abort") return { outcome: "done", devices: step.abort(row, atMs) }
    if (row.state !== "paused") step.pause(row, "operator", atMs)
    return { outcome: "done", devices: [] }
  }
  return controlRollout
}

/** The methods of the port over one open database. */
export const rolloutMethods = (database: DatabaseSync, audit: Audit): RolloutMethods => {
  const { find, methods } = reading(database)
  return {
    addRollout: adding(database, find, audit),
    ...methods,
    moveRollout: moving(database, find, audit),
    controlRollout: controlling(database, find, audit)
  }
}

/** Orders in the fleet database: submission, offering, progress, cancels, output and artifacts. */
import type { JobRow } from "../../../ports/FleetStore.ts"
import type { PruneReason } from "../../../ports/RetentionStore.ts"
import type { HighWater } from "../../../schemas/DeviceApi.ts"
import type { DsseEnvelope } from "../../../schemas/Dsse.ts"
import type { DeviceId, Digest, OrderId } from "../../../schemas/Ids.ts"
import { Limits } from "../../../schemas/Limits.ts"
import { isFinal, type OrderProgress, type OrderState } from "../../../schemas/WorkOrder.ts"
import type { DatabaseSync } from "../Database.ts"
import type { Audit } from "./Audit.ts"
import { nextSample, type Sample } from "./DownloadRate.ts"
import { type Condition, conditions, statementsByText, valuesOf } from "./Filters.ts"
import {
  type FleetMethods,
  fromJson,
  fromJsonOrNull,
  integer,
  integerOrNull,
  type Row,
  text,
  textOrNull,
  toJson
} from "./FleetMethods.ts"

const prunedOf = (row: Row): JobRow["resultsPruned"] => {
  const atMs = integerOrNull(row, "results_pruned_at_ms")
  return atMs === null ? null : { atMs, why: text(row, "results_pruned_why") as PruneReason }
}

export const toJob = (row: Row): JobRow => ({
  id: text(row, "id") as OrderId,
  device: text(row, "device") as DeviceId,
  order: fromJson(row, "work_order"),
  envelope: fromJson(row, "envelope"),
  digest: text(row, "digest") as Digest,
  state: text(row, "state") as OrderState,
  version: integer(row, "version"),
  reason: textOrNull(row, "reason"),
  doneBytes: integerOrNull(row, "done_bytes"),
  totalBytes: integerOrNull(row, "total_bytes"),
  bytesPerSecond: integerOrNull(row, "bytes_per_second"),
  submittedAtMs: integer(row, "submitted_at_ms"),
  submittedBy: text(row, "submitted_by"),
  changedAtMs: integer(row, "changed_at_ms"),
  cancel: fromJsonOrNull(row, "cancel"),
  stopRequested: integer(row, "stop") === 1,
  receipt: fromJsonOrNull(row, "receipt"),
  receiptDigest: textOrNull(row, "receipt_digest") as Digest | null,
  outputChunks: integer(row, "output_chunks"),
  artifactBytes: integer(row, "artifact_bytes"),
  resultsPruned: prunedOf(row)
})

interface Place {
  readonly rootVersion: number
  readonly counter: number
}

const isAbove = (place: Place, than: Place): boolean =>
  place.rootVersion !== than.rootVersion ? place.rootVersion > than.rootVersion : place.counter > than.counter

const placeOf = (mark: HighWater): Place => ({ rootVersion: mark.root_version, counter: mark.counter })

/** Places in the devices' sequences. An order that waits for its phase lies far above; others pass below it. */
const places = (database: DatabaseSync) => {
  const last = database.prepare(`
    SELECT root_version, counter, digest FROM jobs WHERE device = ? AND (held = 0 OR final = 1)
    ORDER BY root_version DESC, counter DESC LIMIT 1`)
  const highest = database.prepare(
    "SELECT max(counter) AS counter FROM jobs WHERE device = ? AND (held = 0 OR final = 1)"
  )
  const at = database.prepare(
    "SELECT 1 AS found FROM jobs WHERE device = ? AND root_version = ? AND counter = ?"
  )
  const mark = database.prepare("SELECT high_water FROM devices WHERE device = ?")
  const isTaken = (device: DeviceId, { counter, rootVersion }: Place): boolean =>
    at.get(device, rootVersion, counter) !== undefined
  /** The last place given out for a device: by us, or (after our own restore from a backup) by what the device has. */
  const lastOf = (device: DeviceId): (Place & { readonly digest: Digest }) | null => {
    const row = last.get(device) as Row | undefined
    const ours =
      row === undefined
        ? null
        : {
            rootVersion: integer(row, "root_version"),
            counter: integer(row, "counter"),
            digest: text(row, "digest") as Digest
          }
    const seen = mark.get(device) as Row | undefined
    const highWater = seen === undefined ? null : fromJsonOrNull<HighWater>(seen, "high_water")
    if (highWater === null) return ours
    const theirs = { ...placeOf(highWater), digest: highWater.order_digest }
    return ours === null || isAbove(theirs, ours) ? theirs : ours
  }
  return {
    isFree: (device: DeviceId, place: Place): boolean => {
      const before = lastOf(device)
      return (before === null || isAbove(place, before)) && !isTaken(device, place)
    },
    next: (device: DeviceId) => {
      const before = lastOf(device)
      const top = integerOrNull(highest.get(device) as Row, "counter") ?? 0
      const rootVersion = before?.rootVersion ?? 0
      const counter = Math.max(top, before?.counter ?? 0) + 1
      // One that waits may stand just there.
      const nextCounter = isTaken(device, { rootVersion, counter }) ? counter + 1 : counter
      return { nextCounter, previous: before?.digest ?? null, rootVersion }
    }
  }
}

const submission = (database: DatabaseSync, find: (id: OrderId) => Row | undefined, audit: Audit) => {
  const { isFree, next } = places(database)
  const accepted = database.prepare("SELECT 1 AS found FROM devices WHERE device = ? AND status = 'accepted'")
  const gated = database.prepare(`
    SELECT 1 AS found FROM rollout_devices d JOIN rollouts r ON r.id = d.rollout
    WHERE d.job = ? AND (d.phase > r.phase OR r.state <> 'running')`)
  const insert = database.prepare(`
    INSERT INTO jobs (id, device, lane, root_version, counter, digest, payload_digest, work_order, envelope, state,
      submitted_at_ms, submitted_by, changed_at_ms, expires_at_ms, held)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?, ?)`)
  // The device would refuse it from now on.
  const overtake = database.prepare(`
    UPDATE jobs SET state = 'removed', final = 1, version = version + 1, reason = 'overtaken', changed_at_ms = ?
    WHERE device = ? AND held = 1 AND final = 0 AND (root_version, counter) < (?, ?)`)
  return {
    submit: (order, envelope, digest, actor, atMs) => {
      const there = find(order.id)
      if (there !== undefined) return text(there, "digest") === digest ? "same" : "id_taken"
      if (accepted.get(order.device) === undefined) return "unknown_device"
      const { counter, device, root_version: rootVersion } = order
      if (!isFree(device, { rootVersion, counter })) return "sequence_taken"
      const isHeld = gated.get(order.id) !== undefined
      insert.run(
        order.id,
        device,
        order.lane,
        rootVersion,
        counter,
        digest,
        order.payload.digest,
        toJson(order),
        toJson(envelope),
        atMs,
        actor,
        atMs,
        order.expires_at_ms,
        isHeld ? 1 : 0
      )
      if (!isHeld) overtake.run(atMs, device, rootVersion, counter)
      audit(atMs, actor, "submit", `${order.id} for ${device}`)
      return "queued"
    },
    sequence: next
  } satisfies Partial<FleetMethods>
}

const offering = (database: DatabaseSync) => {
  const open = database.prepare(`
    SELECT * FROM jobs WHERE device = ? AND final = 0 AND held = 0 AND state IN ('queued', 'offered') AND device_version < 0
      AND (root_version, counter) > (?, ?) ORDER BY root_version, counter LIMIT ?`)
  const mark = database.prepare(
    "UPDATE jobs SET state = 'offered', version = version + 1, changed_at_ms = ? WHERE id = ?"
  )
  const cancels = database.prepare(
    "SELECT id, cancel FROM jobs WHERE device = ? AND final = 0 AND cancel IS NOT NULL ORDER BY root_version, counter LIMIT ?"
  )
  const stops = database.prepare(
    "SELECT id FROM jobs WHERE device = ? AND final = 0 AND stop = 1 ORDER BY root_version, counter LIMIT ?"
  )
  return {
    offer: (device, lanes, above, maximum, atMs) => {
      const from = above === null ? { rootVersion: 0, counter: 0 } : placeOf(above)
      const rows = open.all(device, from.rootVersion, from.counter, maximum)
      const end =
        rows.findLastIndex((row) => (lanes as ReadonlyArray<string>).includes(text(row, "lane"))) + 1
      return rows.slice(0, end).map((row) => {
        if (text(row, "state") === "offered") return toJob(row)
        mark.run(atMs, text(row, "id"))
        return { ...toJob(row), state: "offered", version: integer(row, "version") + 1, changedAtMs: atMs }
      })
    },
    interventions: (device) => ({
      cancels: cancels.all(device, Limits.pollCancels).map((row) => ({
        order: text(row, "id") as OrderId,
        envelope: fromJson<DsseEnvelope>(row, "cancel")
      })),
      stops: stops.all(device, Limits.pollCancels).map((row) => text(row, "id") as OrderId)
    })
  } satisfies Partial<FleetMethods>
}

const interventions = (database: DatabaseSync, find: (id: OrderId) => Row | undefined, audit: Audit) => {
  const cancel = database.prepare(
    "UPDATE jobs SET cancel = ?, version = version + 1, changed_at_ms = ? WHERE id = ? AND cancel IS NULL"
  )
  const stop = database.prepare(
    "UPDATE jobs SET stop = 1, version = version + 1, changed_at_ms = ? WHERE id = ? AND stop = 0"
  )
  return {
    cancel: (document, envelope, actor, atMs) => {
      const row = find(document.order)
      if (row === undefined || text(row, "device") !== document.device) return "unknown"
      if (integer(row, "final") === 1) return "finished"
      if (cancel.run(toJson(envelope), atMs, document.order).changes > 0)
        audit(atMs, actor, "cancel", document.order)
      return "done"
    },
    requestStop: (id, actor, atMs) => {
      const row = find(id)
      if (row === undefined) return "unknown"
      if (integer(row, "final") === 1) return "finished"
      if (stop.run(atMs, id).changes > 0) audit(atMs, actor, "stop", id)
      return "done"
    }
  } satisfies Partial<FleetMethods>
}

/** On the server `queued` means "not yet handed out": what a device has queued is `offered` here. */
const shownState = (state: OrderState): OrderState => (state === "queued" ? "offered" : state)

const movesOn = (row: Row, event: OrderProgress): boolean => {
  const known = integer(row, "device_version")
  if (event.version !== known) return event.version > known
  return (
    shownState(event.state) === text(row, "state") &&
    event.done_bytes !== null &&
    event.done_bytes > (integerOrNull(row, "done_bytes") ?? -1)
  )
}

const sampleOf = (row: Row): Sample => ({
  atMs: integerOrNull(row, "sampled_at_ms"),
  bytes: integerOrNull(row, "sampled_bytes"),
  rate: integerOrNull(row, "bytes_per_second")
})

const reports = (database: DatabaseSync, find: (id: OrderId) => Row | undefined) => {
  const update = database.prepare(`
    UPDATE jobs SET state = ?, device_version = ?, done_bytes = ?, total_bytes = ?, bytes_per_second = ?,
      sampled_at_ms = ?, sampled_bytes = ?, version = version + 1, changed_at_ms = ?, taken_at_ms = coalesce(taken_at_ms, ?),
      taken_epoch = (SELECT epoch FROM devices WHERE device = jobs.device)
    WHERE id = ?`)
  const chunk = database.prepare("SELECT bytes FROM output WHERE job = ? AND sequence = ?")
  const addChunk = database.prepare("INSERT INTO output (job, sequence, bytes) VALUES (?, ?, ?)")
  const countChunk = database.prepare(
    "UPDATE jobs SET output_chunks = max(output_chunks, ?), output_bytes = output_bytes + ? WHERE id = ?"
  )
  const chunks = database.prepare(
    "SELECT sequence, bytes FROM output WHERE job = ? AND sequence >= ? ORDER BY sequence LIMIT ?"
  )
  const artifacts = database.prepare(
    "UPDATE jobs SET artifact_bytes = max(artifact_bytes, ?) WHERE id = ? AND device = ?"
  )
  const ofDevice = (device: DeviceId, id: OrderId): Row | undefined => {
    const row = find(id)
    return row !== undefined && text(row, "device") === device ? row : undefined
  }
  return {
    progress: (device, events) => {
      const changed = new Set<OrderId>()
      for (const event of events) {
        const row = ofDevice(device, event.order)
        if (row === undefined || integer(row, "final") === 1 || isFinal(event.state) || !movesOn(row, event))
          continue
        const { at_ms, done_bytes, order, total_bytes, version } = event
        const { atMs, bytes, rate } = nextSample(sampleOf(row), done_bytes, at_ms)
        const figures = [done_bytes, total_bytes, rate, atMs, bytes] as const
        update.run(shownState(event.state), version, ...figures, at_ms, at_ms, order)
        changed.add(order)
      }
      return [...changed]
    },
    addOutput: (device, order, sequence, bytes) => {
      if (ofDevice(device, order) === undefined) return false
      const there = chunk.get(order, sequence) as { bytes: Uint8Array } | undefined
      if (there !== undefined) return Buffer.compare(there.bytes, bytes) === 0
      addChunk.run(order, sequence, bytes)
      // Behind the highest sequence, not a count: each attempt at an order begins a range of its own.
      countChunk.run(sequence + 1, bytes.length, order)
      return true
    },
    output: (order, from, maximum) =>
      chunks.all(order, from, maximum).map((row) => ({
        sequence: integer(row, "sequence"),
        bytes: row["bytes"] as Uint8Array
      })),
    artifactsReceived: (device, order, bytes) => artifacts.run(bytes, order, device).changes > 0
  } satisfies Partial<FleetMethods>
}

const listing = (database: DatabaseSync) => {
  const statements = statementsByText(database)
  const use = database.prepare("SELECT min(final) AS final FROM jobs WHERE device = ? AND payload_digest = ?")
  return {
    jobs: ({ after, device, limit, open, sinceMs, state, untilMs }) => {
      const where: Array<Condition> = []
      if (device !== null) where.push(["device = ?", device])
      if (open) where.push(["final = ?", 0])
      if (state !== undefined) where.push(["state = ?", state])
      if (sinceMs !== undefined) where.push(["submitted_at_ms >= ?", sinceMs])
      if (untilMs !== undefined) where.push(["submitted_at_ms < ?", untilMs])
      if (after !== undefined) where.push(["(submitted_at_ms, id) < (?, ?)", after.atMs, after.id])
      const rows = statements(
        `SELECT * FROM jobs ${conditions(where)} ORDER BY submitted_at_ms DESC, id DESC LIMIT ?`
      ).all(...valuesOf(where), limit)
      return rows.map(toJob)
    },
    payloadUse: (device, digest) => {
      const final = integerOrNull(use.get(device, digest) as Row, "final")
      return final === null ? "none" : final === 0 ? "open" : "finished"
    }
  } satisfies Partial<FleetMethods>
}

export const jobMethods = (database: DatabaseSync, audit: Audit) => {
  const byId = database.prepare("SELECT * FROM jobs WHERE id = ?")
  const find = (id: OrderId) => byId.get(id) as Row | undefined
  return {
    job: (id) => {
      const row = find(id)
      return row === undefined ? null : toJob(row)
    },
    ...submission(database, find, audit),
    ...offering(database),
    ...interventions(database, find, audit),
    ...reports(database, find),
    ...listing(database)
  } satisfies Partial<FleetMethods>
}

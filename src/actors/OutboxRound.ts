/**
 * One round of sending: the oldest items of the outbox, in order, each until the server has it. An item is forgotten only
 * when the server named it (a receipt by number and digest), or when it will never take it (output and artifacts only).
 */
import { Effect } from "effect"
import { DeviceClock } from "../ports/DeviceClock.ts"
import { Ledger, type OutboxItem } from "../ports/Ledger.ts"
import { PackageStore } from "../ports/PackageStore.ts"
import { type Answer, type LinkError, ServerLink } from "../ports/ServerLink.ts"
import type { DeviceApiErrorCode } from "../schemas/DeviceApi.ts"
import type { OrderId } from "../schemas/Ids.ts"
import { Limits } from "../schemas/Limits.ts"
import { monotonicMs } from "./Alarm.ts"
import { type Delays, delayAfter } from "./Delays.ts"
import { linkProblem } from "./TrustSteps.ts"

export type ReceiptItem = Extract<OutboxItem, { kind: "receipt" }>
type ArtifactsItem = Extract<OutboxItem, { kind: "artifacts" }>
type OutputItem = Extract<OutboxItem, { kind: "output" }>

/** Items read at a time. */
export const roundItems = 32

/** What a life of the outbox remembers of items that do not go through. */
export interface RoundMemory {
  /** Receipts the server refuses to take, with the monotonic time until which they are left alone. */
  readonly held: Map<number, { readonly untilAt: number; readonly failures: number }>
  /** How far artifacts got, so that a new round goes on there. */
  readonly offsets: Map<number, number>
  /** Size of the next block of artifacts, where the line is too slow for whole ones. */
  readonly blocks: Map<number, number>
  /** Orders whose output or artifacts do not go through, with the monotonic time until which those are left alone. */
  readonly stuck: Map<OrderId, { readonly untilAt: number; readonly failures: number }>
}

export const freshMemory = (): RoundMemory => ({
  held: new Map(),
  offsets: new Map(),
  blocks: new Map(),
  stuck: new Map()
})

/** A round goes no further after this, so that whoever runs it can show that it lives. */
const roundMs = 600_000
/** The smallest block of artifacts: it goes through a line that deserves the name. */
const smallestBlockBytes = 64 * 1024
/** Before output or artifacts that do not go through are tried again. */
const stuckDelays: Delays = { firstMs: 10_000, factor: 3, maximumMs: 600_000 }
/** So many orders may turn out stuck in one round; more mean that the server is. */
const stuckPerRound = 2

/** What became of one item, or of a batch of receipts. */
export type Sent =
  | { readonly kind: "done"; readonly items: ReadonlyArray<OutboxItem> }
  /** The server will never take it. */
  | { readonly kind: "dropped"; readonly item: OutboxItem; readonly detail: string }
  /** It goes on in the next round. */
  | { readonly kind: "begun" }
  /** Something is wrong with this one; what it is may pass. */
  | { readonly kind: "stuck"; readonly order: OrderId; readonly detail: string }
  /** Receipts that must be kept and tried again later. */
  | { readonly kind: "held"; readonly items: ReadonlyArray<ReceiptItem>; readonly detail: string }

/** Refusals of a single item: the same bytes will never be welcome. All others are about the device or the moment. */
const hopeless: ReadonlySet<DeviceApiErrorCode> = new Set([
  "bad_request",
  "not_found",
  "conflict",
  "too_large",
  "gone"
])

const isHopeless = (error: LinkError): boolean => error._tag === "ServerRefused" && hopeless.has(error.code)

/** Whether an answer says something about a single result at the most: others may well go through. */
const isStuck = (error: LinkError): boolean =>
  error._tag === "ServerUntrusted" || (error._tag === "ServerRefused" && error.code === "internal")

const heard = <A>(answer: Answer<A>) =>
  Effect.flatMap(DeviceClock, (clock) => Effect.as(clock.accept(answer.serverTimeMs), answer.body))

const orDrop = (item: OutputItem | ArtifactsItem) => (error: LinkError) => {
  const detail = linkProblem(error)
  if (isHopeless(error)) return Effect.succeed<Sent>({ kind: "dropped", item, detail })
  return isStuck(error)
    ? Effect.succeed<Sent>({ kind: "stuck", order: item.order, detail })
    : Effect.fail(error)
}

const sendOutput = (item: OutputItem) =>
  Effect.gen(function* () {
    const link = yield* ServerLink
    yield* heard(yield* link.output(item.order, item.sequence, item.bytes))
    return { kind: "done", items: [item] } satisfies Sent as Sent
  }).pipe(Effect.catch(orDrop(item)))

/** Sends a file of artifacts block by block, from where the server says it is. */
const transfer = Effect.fnUntraced(function* (item: ArtifactsItem, memory: RoundMemory, untilAt: number) {
  const link = yield* ServerLink
  const store = yield* PackageStore
  const drop = (detail: string): Sent => ({ kind: "dropped", item, detail })
  let offset = memory.offsets.get(item.id) ?? 0
  let stalled = 0
  while (offset < item.sizeBytes) {
    const blockBytes = memory.blocks.get(item.id) ?? Limits.blockBytes
    const block = yield* store.readBlock(item.path, offset, Math.min(blockBytes, item.sizeBytes - offset))
    if (block.length === 0) return drop("the file in the spool is shorter than it was")
    const answer = yield* link.artifacts(item.order, offset, item.sizeBytes, block).pipe(
      Effect.tapError(({ _tag }) =>
        Effect.sync(() => {
          if (_tag === "ServerUnreachable")
            memory.blocks.set(item.id, Math.max(Math.floor(blockBytes / 2), smallestBlockBytes))
        })
      ),
      Effect.flatMap(heard)
    )
    // A server that was set back may have less than we sent, but it may not send us round in circles.
    stalled = answer.received_bytes > offset ? 0 : stalled + 1
    if (stalled > 3 || answer.received_bytes > item.sizeBytes)
      return drop("the server's count of the artifacts makes no sense")
    offset = answer.received_bytes
    memory.offsets.set(item.id, offset)
    if (offset < item.sizeBytes && (yield* monotonicMs) >= untilAt)
      return { kind: "begun" } satisfies Sent as Sent
  }
  const done: Sent = { kind: "done", items: [item] }
  return done
})

const sendArtifacts = (item: ArtifactsItem, memory: RoundMemory, untilAt: number) =>
  transfer(item, memory, untilAt).pipe(
    Effect.catchTag("ServerRefused", (error) => {
      // It has less than it said (it was set back): once more, from the beginning.
      const begun = error.code === "conflict" && memory.offsets.delete(item.id)
      return begun ? transfer(item, memory, untilAt) : Effect.fail(error)
    }),
    Effect.catchTags({
      ServerUnreachable: orDrop(item),
      ServerRefused: orDrop(item),
      ServerUntrusted: orDrop(item),
      StorageError: (error) =>
        Effect.succeed<Sent>({
          kind: "dropped",
          item,
          detail: `the artifacts cannot be read: ${error.reason}`
        })
    })
  )

/** Sends receipts together; those the server did not name, and those it refuses, are kept. */
const sendReceipts = (items: ReadonlyArray<ReceiptItem>) =>
  Effect.gen(function* () {
    const link = yield* ServerLink
    const { acknowledged } = yield* heard(
      yield* link.receipts({ receipts: items.map((item) => item.envelope) })
    )
    const named = (item: ReceiptItem) =>
      acknowledged.some((entry) => entry.number === item.number && entry.digest === item.digest)
    const kept = items.filter((item) => !named(item))
    const sent: Array<Sent> = [{ kind: "done", items: items.filter(named) }]
    if (kept.length > 0) sent.push({ kind: "held", items: kept, detail: "the server did not acknowledge it" })
    return sent as ReadonlyArray<Sent>
  }).pipe(
    Effect.catchIf(isHopeless, (error) =>
      Effect.succeed<ReadonlyArray<Sent>>([{ kind: "held", items, detail: linkProblem(error) }])
    )
  )

/**
 * Sends a run of receipts as one request; if that is refused, one by one, so that a single bad one holds up no other.
 */
const sendRun = Effect.fnUntraced(function* (items: ReadonlyArray<ReceiptItem>) {
  const together = yield* sendReceipts(items)
  const refused = together.every((sent) => sent.kind === "held") && items.length > 1
  if (!refused) return together
  const singly = yield* Effect.forEach(items, (item) => sendReceipts([item]))
  return singly.flat()
})

/** Cuts the items into what is sent together: neighbouring receipts, everything else alone. */
export const batches = (items: ReadonlyArray<OutboxItem>): ReadonlyArray<ReadonlyArray<OutboxItem>> => {
  const result: Array<Array<OutboxItem>> = []
  for (const item of items) {
    const last = result.at(-1)
    const joins =
      item.kind === "receipt" && last?.[0]?.kind === "receipt" && last.length < Limits.receiptsPerRequest
    if (joins) last.push(item)
    else result.push([item])
  }
  return result
}

const sendBatch = (batch: ReadonlyArray<OutboxItem>, memory: RoundMemory, untilAt: number) => {
  const first = batch[0] as OutboxItem
  switch (first.kind) {
    case "output":
      return Effect.map(sendOutput(first), (sent) => [sent] as ReadonlyArray<Sent>)
    case "artifacts":
      return Effect.map(sendArtifacts(first, memory, untilAt), (sent) => [sent] as ReadonlyArray<Sent>)
    case "receipt":
      return sendRun(batch as ReadonlyArray<ReceiptItem>)
  }
}

/** Forgets what is settled, in the ledger and on disk. */
const settle = Effect.fnUntraced(function* (sent: Sent, memory: RoundMemory) {
  if (sent.kind === "held" || sent.kind === "begun") return
  if (sent.kind === "stuck") {
    const failures = (memory.stuck.get(sent.order)?.failures ?? 0) + 1
    const untilAt = (yield* monotonicMs) + (yield* delayAfter(stuckDelays, failures))
    memory.stuck.set(sent.order, { untilAt, failures })
    if (failures > 1) return
    return yield* Effect.logWarning(`results do not go through and wait: ${sent.detail}`).pipe(
      Effect.annotateLogs({ order: sent.order })
    )
  }
  const ledger = yield* Ledger
  const store = yield* PackageStore
  const items = sent.kind === "done" ? sent.items : [sent.item]
  if (sent.kind === "dropped") {
    yield* Effect.logWarning(`the server will not take ${sent.item.kind}: ${sent.detail}`).pipe(
      Effect.annotateLogs({ order: sent.item.kind === "receipt" ? null : sent.item.order })
    )
  }
  yield* ledger.acknowledge(items)
  for (const item of items) {
    memory.offsets.delete(item.id)
    memory.blocks.delete(item.id)
    memory.held.delete(item.id)
    if (item.kind !== "receipt") memory.stuck.delete(item.order)
    if (item.kind === "artifacts") {
      yield* Effect.catch(store.removeSpooled(item.path), (error) =>
        Effect.logWarning(`sent artifacts are left in the spool: ${error.path}: ${error.reason}`)
      )
    }
  }
})

/** What one round came to. */
interface RoundOutcome {
  sent: number
  dropped: number
  /** Why results of some orders did not go through. */
  stuck: ReadonlyArray<string>
  held: ReadonlyArray<ReceiptItem>
  /** Items seen that are still there. */
  left: number
}

/** Sends what of the items may be sent, until something says that the round is over. */
const sendAll = Effect.fnUntraced(function* (
  ready: ReadonlyArray<OutboxItem>,
  memory: RoundMemory,
  untilAt: number,
  outcome: RoundOutcome
) {
  const now = new Set<OrderId>()
  for (const batch of batches(ready)) {
    const first = batch[0] as OutboxItem
    if (first.kind !== "receipt" && now.has(first.order)) continue
    for (const sent of yield* sendBatch(batch, memory, untilAt)) {
      yield* settle(sent, memory)
      if (sent.kind === "done") outcome.sent += sent.items.length
      else if (sent.kind === "dropped") outcome.dropped++
      else if (sent.kind === "held") outcome.held = [...outcome.held, ...sent.items]
      else if (sent.kind === "stuck") {
        now.add(sent.order)
        outcome.stuck = [...outcome.stuck, sent.detail]
      }
    }
    if (now.size >= stuckPerRound || (yield* monotonicMs) >= untilAt) return
  }
})

/** Sends the oldest items that are neither held nor stuck; gives what became of each. */
export const sendRound = (memory: RoundMemory, nowAt: number) =>
  Effect.gen(function* () {
    const ledger = yield* Ledger
    const without = [...memory.stuck].filter(([, { untilAt }]) => untilAt > nowAt).map(([order]) => order)
    const oldest = yield* ledger.outbox(roundItems + memory.held.size, without)
    const ready = oldest
      .filter((item) => (memory.held.get(item.id)?.untilAt ?? nowAt) <= nowAt)
      .slice(0, roundItems)
      // A large file that a round did not get through lets what is small go first.
      .sort((one, other) => Number(memory.offsets.has(one.id)) - Number(memory.offsets.has(other.id)))
    const outcome: RoundOutcome = { sent: 0, dropped: 0, stuck: [], held: [], left: oldest.length }
    yield* sendAll(ready, memory, nowAt + roundMs, outcome).pipe(
      // Not even receipts go through: nothing is wrong with the single results.
      Effect.tapError(() => Effect.sync(() => memory.stuck.clear()))
    )
    outcome.left -= outcome.sent + outcome.dropped
    return outcome
  })

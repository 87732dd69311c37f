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
import { Limits } from "../schemas/Limits.ts"
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
}

/** What became of one item, or of a batch of receipts. */
export type Sent =
  | { readonly kind: "done"; readonly items: ReadonlyArray<OutboxItem> }
  /** The server will never take it. */
  | { readonly kind: "dropped"; readonly item: OutboxItem; readonly detail: string }
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

const heard = <A>(answer: Answer<A>) =>
  Effect.flatMap(DeviceClock, (clock) => Effect.as(clock.accept(answer.serverTimeMs), answer.body))

const orDrop = (item: OutboxItem) => (error: LinkError) =>
  isHopeless(error)
    ? Effect.succeed<Sent>({ kind: "dropped", item, detail: linkProblem(error) })
    : Effect.fail(error)

const sendOutput = (item: OutputItem) =>
  Effect.gen(function* () {
    const link = yield* ServerLink
    yield* heard(yield* link.output(item.order, item.sequence, item.bytes))
    return { kind: "done", items: [item] } satisfies Sent as Sent
  }).pipe(Effect.catch(orDrop(item)))

/** Sends a file of artifacts block by block, from where the server says it is. */
const transfer = Effect.fnUntraced(function* (item: ArtifactsItem, memory: RoundMemory) {
  const link = yield* ServerLink
  const store = yield* PackageStore
  const drop = (detail: string): Sent => ({ kind: "dropped", item, detail })
  let offset = memory.offsets.get(item.id) ?? 0
  let stalled = 0
  while (offset < item.sizeBytes) {
    const block = yield* store.readBlock(
      item.path,
      offset,
      Math.min(Limits.blockBytes, item.sizeBytes - offset)
    )
    if (block.length === 0) return drop("the file in the spool is shorter than it was")
    const answer = yield* heard(yield* link.artifacts(item.order, offset, item.sizeBytes, block))
    // A server that was set back may have less than we sent, but it may not send us round in circles.
    stalled = answer.received_bytes > offset ? 0 : stalled + 1
    if (stalled > 3 || answer.received_bytes > item.sizeBytes)
      return drop("the server's count of the artifacts makes no sense")
    offset = answer.received_bytes
    memory.offsets.set(item.id, offset)
  }
  const done: Sent = { kind: "done", items: [item] }
  return done
})

const sendArtifacts = (item: ArtifactsItem, memory: RoundMemory) =>
  transfer(item, memory).pipe(
    Effect.catchTag("ServerRefused", (error) => {
      // It has less than it said (it was set back): once more, from the beginning.
      const begun = error.code === "conflict" && memory.offsets.delete(item.id)
      return begun ? transfer(item, memory) : Effect.fail(error)
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

const sendBatch = (batch: ReadonlyArray<OutboxItem>, memory: RoundMemory) => {
  const first = batch[0] as OutboxItem
  switch (first.kind) {
    case "output":
      return Effect.map(sendOutput(first), (sent) => [sent] as ReadonlyArray<Sent>)
    case "artifacts":
      return Effect.map(sendArtifacts(first, memory), (sent) => [sent] as ReadonlyArray<Sent>)
    case "receipt":
      return sendRun(batch as ReadonlyArray<ReceiptItem>)
  }
}

/** Forgets what is settled, in the ledger and on disk. */
const settle = Effect.fnUntraced(function* (sent: Sent, memory: RoundMemory) {
  if (sent.kind === "held") return
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
    memory.held.delete(item.id)
    if (item.kind === "artifacts") {
      yield* Effect.catch(store.removeSpooled(item.path), (error) =>
        Effect.logWarning(`sent artifacts are left in the spool: ${error.path}: ${error.reason}`)
      )
    }
  }
})

/** Sends the oldest items that are not held; gives what became of each. */
export const sendRound = (memory: RoundMemory, nowAt: number) =>
  Effect.gen(function* () {
    const ledger = yield* Ledger
    const oldest = yield* ledger.outbox(roundItems + memory.held.size)
    const ready = oldest
      .filter((item) => (memory.held.get(item.id)?.untilAt ?? nowAt) <= nowAt)
      .slice(0, roundItems)
    const outcome = { sent: 0, dropped: 0, held: [] as Array<ReceiptItem>, left: oldest.length }
    for (const batch of batches(ready)) {
      for (const sent of yield* sendBatch(batch, memory)) {
        yield* settle(sent, memory)
        if (sent.kind === "done") outcome.sent += sent.items.length
        else if (sent.kind === "dropped") outcome.dropped++
        else outcome.held.push(...sent.items)
      }
    }
    outcome.left -= outcome.sent + outcome.dropped
    return outcome
  })

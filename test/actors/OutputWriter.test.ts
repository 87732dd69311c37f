import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import { flushAfterMs, makeOutputWriter } from "../../src/actors/OutputWriter.ts"
import { SqliteLedgerOver } from "../../src/adapters/SqliteLedger.ts"
import { openDatabase } from "../../src/adapters/sqlite/Database.ts"
import { concatBytes } from "../../src/crypto/Bytes.ts"
import { digestOf } from "../../src/crypto/Documents.ts"
import { CryptoEngine } from "../../src/ports/CryptoEngine.ts"
import { Ledger, type OutboxItem } from "../../src/ports/Ledger.ts"
import { Limits } from "../../src/schemas/Limits.ts"
import { decodeFrames, firstSequence, type OutputFrame } from "../../src/schemas/OutputFrames.ts"
import { SeededEntropy } from "../crypto/SeededEntropy.ts"
import { engine, orderOf } from "./support/Parties.ts"
import { SimulatedHost, SimulatedHostLayer } from "./support/SimulatedHost.ts"

const order = orderOf(1, { script: [] })

const services = (host: SimulatedHost) =>
  SqliteLedgerOver(openDatabase(":memory:")).pipe(
    Layer.provideMerge(
      Layer.mergeAll(
        Layer.succeed(CryptoEngine, engine),
        SeededEntropy("test", "writer"),
        SimulatedHostLayer(host)
      )
    )
  )

const chunks = Effect.gen(function* () {
  const ledger = yield* Ledger
  return (yield* ledger.outbox(Limits.outboxItems)).filter(
    (item): item is Extract<OutboxItem, { kind: "output" }> => item.kind === "output"
  )
})

const plain = (item: { readonly bytes: Uint8Array }) => item.bytes.subarray("sealed:".length)

const contents = (item: { readonly bytes: Uint8Array }) =>
  (decodeFrames(plain(item)) as ReadonlyArray<OutputFrame>).map(
    (frame) => `${frame.stream}:${Buffer.from(frame.bytes).toString()}`
  )

const withWriter = <A, E>(
  attempt: number,
  use: (
    writer: Effect.Success<ReturnType<typeof makeOutputWriter>>,
    host: SimulatedHost
  ) => Effect.Effect<A, E, Ledger>
) => {
  const host = new SimulatedHost()
  return Effect.scoped(Effect.flatMap(makeOutputWriter(order, attempt), (writer) => use(writer, host))).pipe(
    Effect.provide(services(host))
  )
}

const bytes = (text: string) => new TextEncoder().encode(text)

describe("the output writer", () => {
  it.effect("closes a chunk some time after its first byte", () =>
    withWriter(1, (writer) =>
      Effect.gen(function* () {
        yield* writer.write("stdout", bytes("a"))
        yield* TestClock.adjust(Limits.outputFlushMs - 1)
        yield* writer.write("stderr", bytes("b"))
        expect(yield* chunks).toHaveLength(0)
        yield* TestClock.adjust(1)
        const [first] = yield* chunks
        expect(first && contents(first)).toEqual(["stdout:a", "stderr:b"])
        yield* TestClock.adjust(60_000)
        expect(yield* chunks).toHaveLength(1)
      })
    )
  )
  it.effect("closes a chunk that is full, and never makes a larger one", () =>
    withWriter(1, (writer) =>
      Effect.gen(function* () {
        yield* writer.write("stdout", new Uint8Array(3 * Limits.outputChunkBytes))
        const kept = yield* writer.finish
        const stored = yield* chunks
        expect(stored).toHaveLength(4)
        expect(stored.every((item) => plain(item).length <= Limits.outputChunkBytes)).toBe(true)
        expect(kept).toMatchObject({ chunks: 4, keptBytes: 3 * Limits.outputChunkBytes, cut: false })
      })
    )
  )
  it.effect("accounts for exactly what is stored", () =>
    withWriter(2, (writer) =>
      Effect.gen(function* () {
        yield* writer.write("stdout", bytes("one"))
        yield* TestClock.adjust(1_000)
        yield* writer.write("stderr", bytes("two"))
        const kept = yield* writer.finish
        const stored = yield* chunks
        expect(stored.map((item) => item.sequence)).toEqual([firstSequence(2), firstSequence(2) + 1])
        const digests = stored.map((item) => engine.sha256(item.bytes))
        expect(kept).toEqual({
          chunks: 2,
          keptBytes: 6,
          cut: false,
          digest: digestOf(engine, concatBytes(...digests))
        })
        yield* writer.write("stdout", bytes("too late"))
        expect(yield* writer.finish.pipe(Effect.exit)).toMatchObject({ _tag: "Failure" })
        expect(yield* chunks).toHaveLength(2)
      })
    )
  )
  it.effect("cuts from the first chunk that cannot be kept, and says so", () =>
    withWriter(1, (writer, host) =>
      Effect.gen(function* () {
        yield* writer.write("stdout", bytes("kept"))
        yield* TestClock.adjust(1_000)
        host.storageFailures = 1
        yield* writer.write("stdout", bytes("lost"))
        yield* TestClock.adjust(1_000)
        yield* writer.write("stdout", bytes("after"))
        expect(yield* writer.finish).toMatchObject({ chunks: 1, keptBytes: 4, cut: true })
      })
    )
  )
  it("lets a job trickle for a week within its chunks", () => {
    let passedMs = 0
    let count = 0
    while (passedMs < 6 * 86_400_000) passedMs += flushAfterMs(count++)
    expect(count).toBeLessThan(Limits.outputChunks)
    expect(flushAfterMs(0)).toBe(Limits.outputFlushMs)
  })
})

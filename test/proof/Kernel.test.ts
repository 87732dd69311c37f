/**
 * Random trees of supervisors under random deeds: actors that answer, fail, crash, interrupt themselves, end themselves,
 * ignore interruption, and ask each other. Whatever happens, every ask ends exactly once, nothing is handled twice, no
 * message vanishes uncounted, mailboxes keep their bounds, and stopping ends.
 */
import { expect, it } from "@effect/vitest"
import { Cause, Clock, Effect, type Exit, Fiber, Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import {
  ActorKey,
  type AnySpec,
  AskTimeout,
  Behaviour,
  ChildSpec,
  type Inspection,
  Supervisor,
  type SupervisorSpec
} from "../../src/kernel/index.ts"
import { TestKit } from "../../src/kernel/testing/TestKit.ts"
import { property } from "../kernel/support.ts"
import { scaled } from "../support/proof.ts"

const End = Schema.Literals(["answer", "fail", "crash", "interrupt", "stop", "deaf"])
const WorkProtocol = RpcGroup.make(
  Rpc.make("Do", {
    payload: {
      id: Schema.Int,
      ms: Schema.Finite,
      end: End,
      /** Workers to be asked on behalf of this message, one through the other. */
      via: Schema.Array(Schema.Int)
    },
    success: Schema.Int,
    error: Schema.Literals(["failed"])
  })
)
type WorkRpcs = typeof WorkProtocol extends RpcGroup.RpcGroup<infer R> ? R : never
type Work = WorkRpcs["payloadSchema"]["Type"]

const workers = 6
const keys = Array.from({ length: workers }, (_, index) => ActorKey.make(`worker-${index}`, WorkProtocol))
const keyOf = (index: number) => keys[index % workers] as (typeof keys)[number]
const stopWithinMs = 120_000

interface Branch {
  readonly strategy: "one-for-one" | "one-for-all" | "rest-for-one"
  readonly optional: boolean
  readonly intensity: number
  readonly children: ReadonlyArray<Branch | Leaf>
}
interface Leaf {
  readonly capacity: number
  readonly overflow: "wait" | "reject" | "drop-oldest"
  readonly restart: "permanent" | "transient" | "temporary"
}
interface Deed {
  readonly kind: "tell" | "ask" | "interrupted ask" | "pass time"
  readonly worker: number
  readonly patienceMs: number
  readonly work: Omit<Work, "id">
}

/** `calm`: nobody gives up and nobody leaves for good, so that every message but evicted ones must be handled. */
type Mood = "calm" | "wild"

const leaf = (mood: Mood): fc.Arbitrary<Leaf> =>
  fc.record({
    capacity: fc.integer({ min: 1, max: 6 }),
    overflow: fc.constantFrom("wait", "reject", "drop-oldest"),
    restart:
      mood === "calm" ? fc.constant("permanent") : fc.constantFrom("permanent", "transient", "temporary")
  })

const branch = (mood: Mood, depth: number): fc.Arbitrary<Branch> =>
  fc.record({
    strategy: fc.constantFrom("one-for-one", "one-for-all", "rest-for-one"),
    optional: fc.boolean(),
    intensity: mood === "calm" ? fc.constant(1_000_000) : fc.integer({ min: 0, max: 4 }),
    children: fc.array(depth === 0 ? leaf(mood) : fc.oneof(leaf(mood), branch(mood, depth - 1)), {
      minLength: 2,
      maxLength: 4
    })
  })

const deed = (mood: Mood): fc.Arbitrary<Deed> =>
  fc.record({
    kind: fc.constantFrom("tell", "tell", "ask", "ask", "interrupted ask", "pass time"),
    worker: fc.nat(workers - 1),
    patienceMs: fc.constantFrom(3, 20, 100, 1_000),
    work: fc.record({
      ms: fc.constantFrom(0, 0, 0, 5, 40),
      end: fc.constantFrom<Work["end"]>(
        "answer",
        "answer",
        "answer",
        "fail",
        "crash",
        "interrupt",
        ...(mood === "calm" ? [] : (["stop", "deaf"] as const))
      ),
      via: fc.array(fc.nat(workers - 1), { maxLength: 3 })
    })
  })

const isLeaf = (node: Branch | Leaf): node is Leaf => "overflow" in node

/** The tree, its first leaves bound to the workers' keys. */
const specOf = (root: Branch, behaviour: Behaviour<WorkRpcs>) => {
  let bound = 0
  const build = (node: Branch | Leaf, id: string): AnySpec => {
    if (!isLeaf(node)) {
      const { children, ...options } = node
      return Supervisor.spec({
        ...options,
        id,
        backoff: { firstMs: 7, factor: 2, maximumMs: 500, jitter: 0.5 },
        degradedBackoff: { firstMs: 1_000, factor: 1, maximumMs: 1_000, jitter: 0 },
        children: children.map((child, index) => build(child, `${id}-${index}`))
      })
    }
    const { restart, ...mailbox } = node
    const key = bound < workers ? keyOf(bound++) : undefined
    return ChildSpec.make({
      id,
      ...(key === undefined ? {} : { key }),
      behaviour,
      restart,
      mailbox,
      shutdownMs: 100
    })
  }
  return build({ ...root, optional: false }, "root") as SupervisorSpec<never>
}

/** What the workers were seen doing. */
const makeWorkers = () => {
  const begun: Array<number> = []
  /** When a handler was done, by message. */
  const ended = new Map<number, number>()
  const behaviour = Behaviour.make(WorkProtocol, (ctx) =>
    Effect.succeed(
      ctx.handlers({
        Do: (request) =>
          Effect.gen(function* () {
            const { end, id, ms, via } = request.payload
            begun.push(id)
            yield* Effect.sleep(ms)
            const [next, ...rest] = via
            if (next !== undefined) {
              // The inner message has an id of its own: the outer one's, and how deep it is.
              const inner = { id: id + 1, ms, end: "answer" as const, via: rest }
              yield* Effect.ignore(request.ask(ctx.ref(keyOf(next)), "Do", inner))
            }
            if (end === "crash") return yield* Effect.die(new Error("crash"))
            if (end === "interrupt") return yield* Effect.interrupt
            if (end === "deaf") return yield* Effect.uninterruptible(Effect.never)
            if (end === "stop") yield* ctx.stopSelf
            ended.set(id, yield* Clock.currentTimeMillis)
            return end === "fail" ? yield* Effect.fail("failed" as const) : id
          })
      })
    )
  )
  return { begun, ended, behaviour }
}

/** Every mailbox of the tree holds what it may hold and no more. */
const expectBounds = (node: Inspection): void => {
  if (node.mailbox !== null) {
    const { capacity, depth, overflow, waiting } = node.mailbox
    expect(depth).toBeLessThanOrEqual(capacity)
    expect(waiting).toBeLessThanOrEqual(overflow === "wait" ? 1_024 : 0)
  }
  for (const child of node.children) expectBounds(child)
}

/** Nothing waits anywhere. */
const expectQuiet = (node: Inspection): void => {
  if (node.mailbox !== null) expect(node.mailbox).toMatchObject({ depth: 0, waiting: 0 })
  for (const child of node.children) expectQuiet(child)
}

interface Ask {
  readonly deadlineMs: number
  readonly exits: Array<Exit.Exit<number, unknown>>
}
interface Sent {
  readonly asks: Map<number, Ask>
  readonly tells: Map<number, Exit.Exit<void, unknown>>
  readonly fibers: Array<Fiber.Fiber<unknown, unknown>>
}

/** Does the deeds one after the other, without waiting for their ends. */
const perform = Effect.fnUntraced(function* (
  system: Effect.Success<ReturnType<typeof TestKit.make>>,
  deeds: ReadonlyArray<Deed>
) {
  const sent: Sent = { asks: new Map(), tells: new Map(), fibers: [] }
  for (const [index, { kind, patienceMs, work, worker }] of deeds.entries()) {
    // Room for the ids of what is asked on behalf of it.
    const id = index * 10
    const payload = { ...work, id }
    const ref = system.ref(keyOf(worker))
    if (kind === "pass time") yield* TestClock.adjust(work.ms)
    else if (kind === "tell") {
      const told = Effect.tap(Effect.exit(ref.tell("Do", payload)), (exit) =>
        Effect.sync(() => sent.tells.set(id, exit))
      )
      sent.fibers.push(yield* Effect.forkChild(told))
    } else {
      const ask: Ask = { deadlineMs: (yield* Clock.currentTimeMillis) + patienceMs, exits: [] }
      sent.asks.set(id, ask)
      const asked = Effect.onExit(ref.ask("Do", payload, { timeoutMs: patienceMs }), (exit) =>
        Effect.sync(() => ask.exits.push(exit))
      )
      const fiber = yield* Effect.forkChild(Effect.exit(asked))
      sent.fibers.push(fiber)
      if (kind === "interrupted ask") {
        yield* Effect.yieldNow
        yield* Fiber.interrupt(fiber)
      }
    }
    expectBounds((yield* system.inspect()).root)
  }
  return sent
})

/** Stopping ends, within what the tree's own time-outs allow. */
const expectStop = Effect.fnUntraced(function* (system: Effect.Success<ReturnType<typeof TestKit.make>>) {
  const stopping = yield* Effect.forkChild(system.stop)
  for (let passedMs = 0; passedMs < stopWithinMs && stopping.pollUnsafe() === undefined; passedMs += 100) {
    yield* TestClock.adjust(100)
  }
  expect(stopping.pollUnsafe()).toBeDefined()
})

const isTimeout = (cause: Cause.Cause<unknown>): boolean => Cause.squash(cause) instanceof AskTimeout

const life = (mood: Mood, tree: Branch, deeds: ReadonlyArray<Deed>) =>
  Effect.gen(function* () {
    const { begun, ended, behaviour } = makeWorkers()
    const system = yield* TestKit.make({
      root: specOf(tree, behaviour),
      interruptGraceMs: 50,
      maximumFencedLives: 1_000
    })
    const sent = yield* perform(system, deeds)
    yield* TestClock.adjust(mood === "calm" ? 120_000 : 10_000)
    const { asks, fibers, tells } = sent
    if (mood === "calm") expectQuiet((yield* system.inspect()).root)
    yield* expectStop(system)
    yield* TestClock.adjust(10_000)
    for (const fiber of fibers) expect(fiber.pollUnsafe()).toBeDefined()
    expect(new Set(begun).size).toBe(begun.length)
    for (const [id, { deadlineMs, exits }] of asks) {
      expect(exits.length).toBe(1)
      const exit = exits[0] as Exit.Exit<number, unknown>
      if (exit._tag === "Success") {
        expect(exit.value).toBe(id)
        expect(begun).toContain(id)
      } else if (isTimeout(exit.cause)) {
        // What was done before the deadline was answered.
        expect(ended.get(id) ?? deadlineMs).toBeGreaterThanOrEqual(deadlineMs)
      }
    }
    const { counts } = system.deadLetters
    let unhandled = 0
    for (const [id, exit] of tells) {
      if (exit._tag === "Failure") expect(begun).not.toContain(id)
      else if (!begun.includes(id)) unhandled++
    }
    expect(unhandled).toBeLessThanOrEqual(
      mood === "calm" ? counts.evicted : counts.evicted + counts.stopped + counts.fenced
    )
  })

const lives = (mood: Mood) =>
  property(
    fc.tuple(branch(mood, 2), fc.array(deed(mood), { minLength: 20, maxLength: 120, size: "max" })),
    ([tree, deeds]) => life(mood, tree, deeds),
    scaled(150)
  )

it("loses no message but the one in hand, whatever crashes, as long as nobody gives up", () => lives("calm"))

it("answers every ask once and counts what it loses, also when supervisors give up and actors hang", () =>
  lives("wild"))

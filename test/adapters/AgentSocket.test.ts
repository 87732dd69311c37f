import { existsSync, statSync } from "node:fs"
import { connect } from "node:net"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Schedule } from "effect"
import { AgentInboxKey, SmartAgentKey, TrustKeeperKey } from "../../src/actors/ClientKeys.ts"
import { makeActorDesk } from "../../src/adapters/agent/ActorDesk.ts"
import { agentSocketPath, serveAgent } from "../../src/adapters/agent/AgentSocket.ts"
import { connectAgent } from "../../src/adapters/agent/RemoteDesk.ts"
import { SystemEntropy } from "../../src/adapters/SystemEntropy.ts"
import { hostInProcess, openInProcess } from "../../src/adapters/sqlite/InProcessDatabase.ts"
import { agentBounds, agentDatabase } from "../../src/adapters/sqlite/messages/AgentDatabase.ts"
import { makeAgentStore } from "../../src/adapters/sqlite/SqliteAgentStore.ts"
import { ActorSystem, Behaviour, ChildSpec, Supervisor } from "../../src/kernel/index.ts"
import type { AgentListener } from "../../src/ports/AgentDesk.ts"
import { AgentStore } from "../../src/ports/AgentStore.ts"
import { DeviceClock } from "../../src/ports/DeviceClock.ts"
import { agentLocal } from "../../src/programs/agentLocal.ts"
import { AgentLocalLimits } from "../../src/schemas/AgentLocal.ts"
import type { Message, MessageId, PublicMessage } from "../../src/schemas/Message.ts"
import { CannotRead, CannotSend, NoBus, SmartAgentProtocol } from "../../src/schemas/protocols/SmartAgent.ts"
import { TrustKeeperProtocol } from "../../src/schemas/protocols/TrustKeeper.ts"
import { temporaryFolder } from "./support/folders.ts"

const messageId = (index: number) =>
  [...index.toString()]
    .map((digit) => "abcdefghij"[Number(digit)])
    .join("")
    .padStart(26, "z") as MessageId

const publicMessage = (index: number): PublicMessage => ({
  type: "postern/public/v1",
  id: messageId(index),
  claimed_from: "alice" as never,
  issued_at_ms: 1_000 + index,
  subject: "",
  body: index
})

const idle = { Due: () => Effect.void, Said: () => Effect.void } as const

/** An agent that sends what it can, and answers what it is asked. */
const stubAgent = Behaviour.make(SmartAgentProtocol, (context) =>
  Effect.succeed(
    context.handlers({
      ...idle,
      Send: ({ payload }: { payload: { to: ReadonlyArray<string> } }) =>
        payload.to.length === 0
          ? Effect.fail(new CannotSend({ code: "no_recipient", reason: "a message needs a recipient" }))
          : Effect.succeed(messageId(7)),
      Unsent: ({ payload }: { payload: { id: string } }) =>
        payload.id === messageId(9)
          ? Effect.fail(new CannotRead({ reason: "the disk is broken" }))
          : Effect.succeed(payload.id === messageId(8)),
      Ping: ({ payload }: { payload: { to: string } }) =>
        payload.to === "bob"
          ? Effect.succeed({ id: 0, waitMs: 1_000, answer: Deferred.makeUnsafe<number | null>() }).pipe(
              Effect.tap(({ answer }) => Deferred.succeed(answer, 12))
            )
          : Effect.fail(new NoBus({ reason: "there is no broker at the moment" })),
      Peers: () => Effect.succeed([]),
      Report: () =>
        Effect.succeed({
          name: "carol" as never,
          state: "known" as const,
          detail: "",
          queued: 0,
          waiting: 0,
          refused: {} as never,
          links: []
        })
    } as never)
  )
)

const stubTrust = Behaviour.make(TrustKeeperProtocol, (context) =>
  Effect.succeed(
    context.handlers({
      View: () => Effect.succeed({ phase: "accepted", claimCode: null, detail: "" })
    } as never)
  )
)

/** The inbox and the socket beside an agent that is none. */
const start = Effect.gen(function* () {
  const stateFolder = yield* temporaryFolder
  const store = makeAgentStore(yield* openInProcess(agentDatabase, join(stateFolder, "agent.db")))
  const clock = Layer.succeed(DeviceClock, {
    nowMs: Effect.succeed(0),
    proven: Effect.succeed(true),
    accept: () => Effect.succeed(0)
  })
  const services = yield* Layer.build(Layer.mergeAll(Layer.succeed(AgentStore, store), clock, SystemEntropy))
  const system = yield* ActorSystem.make({
    root: Supervisor.spec({
      id: "agent",
      strategy: "one-for-one",
      children: [
        ChildSpec.make({ key: SmartAgentKey, behaviour: stubAgent }),
        ChildSpec.make({ key: TrustKeeperKey, behaviour: stubTrust }),
        agentLocal(stateFolder)
      ]
    })
  }).pipe(Effect.provideContext(services))
  const inbox = system.ref(AgentInboxKey)
  const desk = yield* makeActorDesk({
    agent: system.ref(SmartAgentKey),
    inbox,
    trust: system.ref(TrustKeeperKey)
  }).pipe(Effect.provideContext(services))
  return {
    stateFolder,
    store,
    desk,
    inbox,
    arrive: (index: number) =>
      Effect.andThen(
        store.take({ _tag: "Public", message: publicMessage(index), receivedAtMs: 5_000 }),
        inbox.tell("Arrived")
      )
  }
})

const bodies = (messages: Effect.Success<ReturnType<AgentListener["take"]>>) =>
  messages.map(({ message }) => message.body)
const places = (messages: Effect.Success<ReturnType<AgentListener["take"]>>) =>
  messages.map(({ place }) => place)
const patienceMs = 60_000

/** Sends raw bytes and gives what comes back until the other side closes, or as many lines as are wanted. */
const raw = (stateFolder: string, bytes: string, wanted: number) =>
  Effect.callback<ReadonlyArray<string>>((resume) => {
    const socket = connect(agentSocketPath(stateFolder))
    let heard = ""
    const finish = () => {
      socket.destroy()
      resume(Effect.succeed(heard.split("\n").filter((line) => line !== "")))
    }
    socket.on("data", (data) => {
      heard += data.toString()
      if (heard.split("\n").length > wanted) finish()
    })
    socket.on("error", () => undefined)
    socket.on("close", finish)
    socket.write(bytes)
  })

describe("the local socket of an agent", () => {
  it.live("does what the agent does, and says why it does not", () =>
    Effect.gen(function* () {
      const { stateFolder } = yield* start
      assert.strictEqual(statSync(agentSocketPath(stateFolder)).mode & 0o777, 0o600)
      const desk = yield* connectAgent(stateFolder)
      const letter = { level: "private", subject: "", body: { a: 1 }, lifetime_ms: null } as const
      assert.strictEqual(yield* desk.send({ ...letter, to: ["bob" as never] }), messageId(7))
      const refused = yield* Effect.flip(desk.send({ ...letter, to: [] }))
      assert.strictEqual(refused.code, "no_recipient")
      assert.deepStrictEqual(
        [yield* desk.unsent(messageId(7)), yield* desk.unsent(messageId(8))],
        [false, true]
      )
      const unread = yield* Effect.flip(desk.unsent(messageId(9)))
      assert.deepStrictEqual([unread.code, unread.reason], ["failed", "the disk is broken"])
      assert.strictEqual(yield* desk.ping("bob" as never), 12)
      assert.strictEqual((yield* Effect.flip(desk.ping("dave" as never))).code, "no_broker")
      assert.deepStrictEqual(yield* desk.peers, [])
      const { agent, enrolment } = yield* desk.report
      assert.deepStrictEqual([agent.name, enrolment.phase], ["carol", "accepted"])
    })
  )

  it.live("takes nothing that an agent could never send, here and there, and goes on", () =>
    Effect.gen(function* () {
      const { desk: own, stateFolder } = yield* start
      const letter = { level: "private", subject: "", body: 1, lifetime_ms: null, to: ["bob"] } as const
      const flawed: ReadonlyArray<readonly [string, Readonly<Record<string, unknown>>]> = [
        ["malformed_letter", { level: "public", to: ["room/+"] }],
        ["malformed_letter", { to: ["Bob"] }],
        ["malformed_letter", { to: "bob" }],
        ["malformed_letter", { subject: "two\nlines" }],
        ["malformed_letter", { level: "secret" }],
        ["malformed_letter", { lifetime_ms: 1.5 }],
        ["too_many_recipients", { to: Array.from({ length: 10_000 }, (_, index) => `agent-${index}`) }]
      ]
      for (const desk of [own, yield* connectAgent(stateFolder)]) {
        for (const [code, part] of flawed) {
          const error = yield* Effect.flip(desk.send({ ...letter, ...part } as never))
          assert.deepStrictEqual([part, error.code], [part, code])
        }
        const doubled = { visible: true, edge_devices: ["lamp", "lamp"] }
        assert.strictEqual((yield* Effect.flip(desk.show(doubled))).code, "malformed")
        assert.strictEqual((yield* Effect.flip(desk.ping("room/+" as never))).code, "malformed")
        assert.strictEqual(yield* desk.send(letter as never), messageId(7))
      }
      const there = yield* connectAgent(stateFolder)
      for (const [code, body] of [
        ["body_too_large", "x".repeat(2 * AgentLocalLimits.requestBytes)],
        ["no_json", 1n]
      ] as const)
        assert.strictEqual((yield* Effect.flip(there.send({ ...letter, body } as never))).code, code)
      assert.strictEqual(yield* there.send(letter as never), messageId(7))
    })
  )

  it.live("gives a message again until somebody is done with it, over connections and lives", () =>
    Effect.gen(function* () {
      const { arrive, stateFolder, store } = yield* start
      for (const index of [1, 2, 3]) yield* arrive(index)
      const listened = Effect.scoped(
        Effect.gen(function* () {
          const { done, take } = yield* (yield* connectAgent(stateFolder)).listen
          const first = yield* take(2, patienceMs)
          assert.deepStrictEqual(bodies(first), [1, 2])
          assert.deepStrictEqual(bodies(yield* take(8, patienceMs)), [3])
          yield* done(places(first).slice(0, 1))
        })
      )
      yield* listened
      const { done, take } = yield* (yield* connectAgent(stateFolder)).listen
      const rest: Array<unknown> = []
      while (rest.length < 2) {
        const came = yield* take(8, patienceMs)
        rest.push(...bodies(came))
        yield* done(places(came))
      }
      assert.deepStrictEqual(rest, [2, 3])
      assert.deepStrictEqual(yield* store.waiting(0, 10), [])
    })
  )

  it.live("shares messages out among listeners, in this process and others", () =>
    Effect.gen(function* () {
      const { arrive, desk, stateFolder } = yield* start
      const here = yield* desk.listen
      const there = yield* (yield* connectAgent(stateFolder)).listen
      for (let index = 0; index < 6; index++) yield* arrive(index)
      const [mine, theirs] = [yield* here.take(3, patienceMs), yield* there.take(8, patienceMs)]
      assert.deepStrictEqual(
        [bodies(mine), bodies(theirs)],
        [
          [0, 1, 2],
          [3, 4, 5]
        ]
      )
      assert.deepStrictEqual(yield* here.take(8, 0), [])
    })
  )

  it.live("wakes a listener that waits, and one whose hand was full", () =>
    Effect.gen(function* () {
      const { arrive, desk } = yield* start
      const { done, take } = yield* desk.listen
      const waiting = yield* Effect.forkChild(take(1, patienceMs))
      yield* arrive(0)
      assert.deepStrictEqual(bodies(yield* Fiber.join(waiting)), [0])
      for (let index = 1; index <= AgentLocalLimits.window; index++) yield* arrive(index)
      const hand = yield* take(AgentLocalLimits.window, patienceMs)
      assert.strictEqual(hand.length, AgentLocalLimits.window - 1)
      const later = yield* Effect.forkChild(take(1, patienceMs))
      yield* done(places(hand))
      assert.deepStrictEqual(bodies(yield* Fiber.join(later)), [AgentLocalLimits.window])
    })
  )

  it.live("refuses what it cannot read, and survives it", () =>
    Effect.gen(function* () {
      const { stateFolder } = yield* start
      const lines = ["nonsense", '{"request":"send","id":1}', '{"request":"peers","id":2}']
      const answers = (yield* raw(stateFolder, `${lines.join("\n")}\n`, 3)).map(
        (line) => JSON.parse(line) as { id: number | null; ok: boolean; code?: string }
      )
      assert.sameDeepMembers(
        answers.map(({ code, id, ok }) => [id, ok, code]),
        [
          [null, false, "malformed"],
          [1, false, "malformed_letter"],
          [2, true, undefined]
        ]
      )
      const tooLong = yield* raw(stateFolder, "x".repeat(AgentLocalLimits.requestBytes + 1_000_000), 9)
      assert.strictEqual((JSON.parse(tooLong[0] as string) as { code: string }).code, "malformed")
      assert.deepStrictEqual(yield* (yield* connectAgent(stateFolder)).peers, [])
    })
  )

  it.live("hangs up on those whose line was too long and who do not hang up themselves", () =>
    Effect.gen(function* () {
      const { stateFolder } = yield* start
      const tooLong = Effect.acquireRelease(
        Effect.sync(() =>
          connect({ path: agentSocketPath(stateFolder), allowHalfOpen: true }).on("error", () => undefined)
        ),
        (socket) => Effect.sync(() => void socket.destroy())
      ).pipe(
        Effect.flatMap((socket) =>
          Effect.callback<void>((resume) => {
            socket.on("data", () => undefined)
            socket.on("end", () => resume(Effect.void))
            socket.write("x".repeat(AgentLocalLimits.requestBytes + 1))
          })
        )
      )
      yield* Effect.all(
        Array.from({ length: AgentLocalLimits.connections }, () => tooLong),
        { concurrency: "unbounded" }
      )
      const peers = Effect.scoped(Effect.flatMap(connectAgent(stateFolder), (desk) => desk.peers))
      const again = Schedule.max([Schedule.spaced("50 millis"), Schedule.recurs(100)])
      assert.deepStrictEqual(yield* Effect.retry(peers, again), [])
    })
  )

  it.live("answers many questions of one connection, each by its number", () =>
    Effect.gen(function* () {
      const { stateFolder } = yield* start
      const desk = yield* connectAgent(stateFolder)
      const pings = Array.from({ length: 4 * AgentLocalLimits.underWay }, () => desk.ping("bob" as never))
      assert.deepStrictEqual(
        yield* Effect.all(pings, { concurrency: "unbounded" }),
        pings.map(() => 12)
      )
    })
  )

  it.live("tells who finds all connections taken, and serves again when one is free", () =>
    Effect.gen(function* () {
      const { stateFolder } = yield* start
      const connected = Effect.tap(connectAgent(stateFolder), (desk) => desk.peers)
      const taken = Effect.replicateEffect(connected, AgentLocalLimits.connections)
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* taken
          for (let round = 0; round < AgentLocalLimits.connections; round++) {
            const refused = yield* connectAgent(stateFolder)
            const error = yield* Effect.flip(refused.peers)
            assert.deepStrictEqual(
              [error.code, error.reason.includes(`${AgentLocalLimits.connections} connections`)],
              ["too_many_listeners", true]
            )
            assert.strictEqual((yield* Effect.flip(refused.ended)).code, "too_many_listeners")
          }
          const [heard] = yield* raw(stateFolder, '{"request":"peers","id":1}\n', 9)
          assert.deepInclude(JSON.parse(heard as string), { id: null, ok: false, code: "too_many_listeners" })
        })
      )
      const again = Schedule.max([Schedule.spaced("50 millis"), Schedule.recurs(100)])
      assert.lengthOf(yield* Effect.retry(Effect.scoped(taken), again), AgentLocalLimits.connections)
    })
  )

  it.live("takes a burst of messages at its own pace, and answers other questions meanwhile", () =>
    Effect.gen(function* () {
      const { desk } = yield* start
      const stateFolder = yield* temporaryFolder
      const goOn = yield* Deferred.make<void>()
      let asked = 0
      const keeping = Effect.andThen(
        Effect.sync(() => asked++),
        Effect.as(Deferred.await(goOn), messageId(7))
      )
      yield* serveAgent({ stateFolder, desk: { ...desk, send: () => keeping } })
      const there = yield* connectAgent(stateFolder)
      const letter = { level: "private", subject: "", body: 1, lifetime_ms: null, to: ["bob"] } as const
      const burst = Array.from({ length: 4 * AgentLocalLimits.underWay }, () => there.send(letter as never))
      const sending = yield* Effect.forkChild(Effect.all(burst, { concurrency: "unbounded" }), {
        startImmediately: true
      })
      assert.strictEqual(yield* there.ping("bob" as never), 12)
      assert.isBelow(asked, AgentLocalLimits.underWay)
      yield* Deferred.succeed(goOn, undefined)
      assert.lengthOf(yield* Fiber.join(sending), burst.length)
      assert.strictEqual(asked, burst.length)
    })
  )

  it.live("is gone with its program, and says so to who waits", () =>
    Effect.gen(function* () {
      const { desk: own, stateFolder: other } = yield* start
      const stateFolder = yield* temporaryFolder
      const waiting = yield* Effect.scoped(
        Effect.gen(function* () {
          yield* serveAgent({ stateFolder, desk: own })
          const { take } = yield* (yield* connectAgent(stateFolder)).listen
          return yield* Effect.forkDetach(Effect.flip(take(1, patienceMs)))
        })
      )
      assert.strictEqual((yield* Fiber.join(waiting)).code, "gone")
      assert.isFalse(existsSync(agentSocketPath(stateFolder)))
      assert.strictEqual((yield* Effect.flip(connectAgent(stateFolder))).code, "not_running")
      assert.isTrue(existsSync(agentSocketPath(other)))
    })
  )
})

describe("the inbox of an agent", () => {
  it.effect("keeps half of its room from those whom nobody knows", () =>
    Effect.gen(function* () {
      const database = new DatabaseSync(":memory:")
      const store = makeAgentStore(yield* hostInProcess(agentDatabase, database))
      const claimed = (index: number) =>
        store.take({ _tag: "Public", message: publicMessage(index), receivedAtMs: 5_000 })
      for (let index = 0; index < agentBounds.inboxForPublic; index++) yield* claimed(index)
      assert.strictEqual((yield* Effect.flip(claimed(agentBounds.inboxForPublic))).code, "full")
      yield* store.dealtWith([1])
      yield* claimed(agentBounds.inboxForPublic)
      assert.strictEqual((yield* Effect.flip(claimed(agentBounds.inboxForPublic + 1))).code, "full")
      const { body, claimed_from, id, issued_at_ms, subject } = publicMessage(0)
      const proved = { body, from: claimed_from, id, issued_at_ms, subject, expires_at_ms: 9_000 }
      assert.isTrue(
        yield* store.take({ _tag: "Secure", message: proved as unknown as Message, receivedAtMs: 5_000 })
      )
    })
  )
})

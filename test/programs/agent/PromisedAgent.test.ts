/** The promises of `postern/agent` over the desk of another program, which is none here. */
import { chmodSync, existsSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope, Stream } from "effect"
import { serveAgent } from "../../../src/adapters/agent/AgentSocket.ts"
import { lockState } from "../../../src/adapters/StateLock.ts"
import type { AgentDesk } from "../../../src/ports/AgentDesk.ts"
import { AgentError, type Message, SmartAgent, type State } from "../../../src/programs/agent.ts"
import { SmartAgent as OnEffect } from "../../../src/programs/agentEffect.ts"
import {
  AgentLocalLimits,
  AgentTrouble,
  type InboxMessage,
  type LocalLetter,
  type LocalReport
} from "../../../src/schemas/AgentLocal.ts"
import { temporaryFolder } from "../../adapters/support/folders.ts"
import { waitUntil } from "../../support/Program.ts"

const proof = {
  type: "postern/message/v1",
  id: "a".repeat(26),
  level: "private",
  from: "bob",
  to: ["alice"],
  issued_at_ms: 1_000,
  expires_at_ms: 9_000,
  subject: "greetings",
  body: { n: 1 },
  signing_key: `${"A".repeat(43)}=`,
  signature: `${"A".repeat(86)}==`
}
const secure = (place: number): InboxMessage =>
  ({ place, received_at_ms: 2_000, message: proof }) as unknown as InboxMessage
const open = (place: number): InboxMessage =>
  ({
    place,
    received_at_ms: 2_000,
    message: {
      type: "postern/public/v1",
      id: "b".repeat(26),
      claimed_from: "mallory",
      issued_at_ms: 1_000,
      subject: "",
      body: "anything"
    }
  }) as unknown as InboxMessage

const reportOf = (phase: LocalReport["enrolment"]["phase"]): LocalReport =>
  ({
    enrolment: { phase, claim_code: phase === "not_enrolled" ? "abcd" : null, detail: "" },
    agent: {
      name: phase === "accepted" ? "alice" : null,
      state: phase === "accepted" ? "known" : "no_trust",
      detail: "",
      queued: 1,
      waiting: 2,
      refused: { expired: 3 },
      links: [{ agent: "bob", pings: 2, lost: 1, last_rtt_ms: 4, smoothed_rtt_ms: 5 }]
    }
  }) as unknown as LocalReport

/** An agent that does nothing, and remembers what it was asked. */
class Stub {
  readonly sent: Array<LocalLetter> = []
  readonly done: Array<number> = []
  takes = 0
  listening = 0
  /** So many reports fail. */
  failing = 0
  /** So often what is done cannot be forgotten. */
  failingDone = 0
  messages: Array<InboxMessage> = []
  phases: Array<LocalReport["enrolment"]["phase"]> = ["accepted"]

  readonly desk: AgentDesk = {
    send: (letter) =>
      Effect.suspend(() => {
        this.sent.push(letter)
        return letter.to.length === 0
          ? Effect.fail(new AgentTrouble({ code: "no_recipient", reason: "a message needs a recipient" }))
          : Effect.succeed(proof.id as never)
      }),
    unsent: () => Effect.succeed(false),
    ping: () => Effect.succeed(null),
    peers: Effect.succeed([]),
    report: Effect.suspend(() =>
      this.failing > 0
        ? Effect.andThen(
            Effect.sync(() => void this.failing--),
            Effect.fail(new AgentTrouble({ code: "failed", reason: "the agent did not answer" }))
          )
        : Effect.succeed(
            reportOf((this.phases.length > 1 ? this.phases.shift() : this.phases[0]) as "accepted")
          )
    ),
    show: () => Effect.void,
    listen: Effect.as(
      Effect.acquireRelease(
        Effect.sync(() => this.listening++),
        () => Effect.sync(() => this.listening--)
      ),
      {
        take: () => {
          this.takes++
          const next = this.messages.shift()
          return next === undefined ? Effect.never : Effect.succeed([next])
        },
        done: (places) =>
          Effect.suspend(() => {
            if (this.failingDone-- > 0)
              return Effect.fail(new AgentTrouble({ code: "failed", reason: "the disk is full" }))
            this.done.push(...places)
            return Effect.void
          })
      }
    )
  }
}

/** A program that runs the stub; ending it ends the scope. */
const running = (stub: Stub) =>
  Effect.gen(function* () {
    const state = yield* temporaryFolder
    const scope = yield* Scope.make()
    yield* Scope.provide(serveAgent({ stateFolder: state, desk: stub.desk }), scope)
    yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
    return { state, end: () => Effect.runPromise(Scope.close(scope, Exit.void)) }
  })

const failure = async (work: Promise<unknown>): Promise<AgentError> => {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown
  )
  assert.instanceOf(error, AgentError)
  return error as AgentError
}

/** Promises beside a running stub. */
const beside = (
  stub: Stub,
  use: (program: { readonly state: string; readonly end: () => Promise<void> }) => Promise<void>
) => Effect.scoped(Effect.flatMap(running(stub), (program) => Effect.promise(() => use(program))))

describe.concurrent("an agent of promises", () => {
  it.live("sends what a program gives it, and fails with a code and a sentence", () => {
    const stub = new Stub()
    return beside(stub, async ({ state }) => {
      const agent = await SmartAgent.open({ state })
      assert.strictEqual(await agent.send({ to: "bob", body: [1, null] }), proof.id)
      await agent.send({ to: ["bob", "carol"], level: "protected", subject: "s", body: "x", lifetimeMs: 5 })
      assert.deepStrictEqual(stub.sent, [
        { level: "private", to: ["bob"], subject: "", body: [1, null], lifetime_ms: null },
        { level: "protected", to: ["bob", "carol"], subject: "s", body: "x", lifetime_ms: 5 }
      ] as never)
      const refused = await failure(agent.send({ to: [], body: 1 }))
      assert.deepStrictEqual([refused.code, refused.message], ["no_recipient", "a message needs a recipient"])
      const name = await failure(agent.send({ to: "Bob", body: 1 }))
      assert.strictEqual(name.code, "malformed_letter")
      assert.include(name.message, "small letters")
      assert.strictEqual((await failure(agent.send({ body: 1 } as never))).code, "malformed_letter")
      assert.isNull(await agent.ping("bob"))
      assert.deepStrictEqual(await agent.report(), {
        state: "known",
        name: "alice",
        detail: "",
        claimCode: null,
        queued: 1,
        waiting: 2,
        refused: { expired: 3 },
        links: [{ agent: "bob", pings: 2, lost: 1, lastRttMs: 4, smoothedRttMs: 5 }]
      })
      assert.strictEqual((await failure(agent.reach("offline", { timeoutMs: 10 }))).code, "timed_out")
      await agent.close()
      await agent.closed
      assert.strictEqual((await failure(agent.send({ to: "bob", body: 1 }))).code, "closed")
    })
  })

  it.live("is done with a message when the loop asks for the next, and not before", () => {
    const stub = new Stub()
    stub.messages = [secure(1), open(2), secure(3), secure(4)]
    return beside(stub, async ({ state }) => {
      const agent = await SmartAgent.open({ state })
      const seen: Array<Message> = []
      for await (const message of agent.messages) {
        seen.push(message)
        if (seen.length === 3) break
      }
      const [first, second] = seen as [Message, Message]
      assert.deepStrictEqual(
        [first.from, first.level, first.sentAt.getTime(), first.proof],
        ["bob", "private", 1_000, proof as never]
      )
      assert.deepInclude(second, {
        from: null,
        claimedFrom: "mallory",
        level: "public",
        proof: null
      } as never)
      assert.deepStrictEqual(stub.done, [1, 2])
      const thrown = async () => {
        for await (const message of agent.messages) {
          await message.done()
          throw new Error(`at ${message.id}`)
        }
      }
      assert.strictEqual(await thrown().catch((error: Error) => error.message), `at ${proof.id}`)
      assert.deepStrictEqual(stub.done, [1, 2, 4])
      await agent.close()
    })
  })

  it.live("says again that a message is dealt with, where that failed before", () => {
    const stub = new Stub()
    stub.messages = [secure(1), secure(2), secure(3)]
    return beside(stub, async ({ state }) => {
      const agent = await SmartAgent.open({ state })
      const seen: Array<string> = []
      stub.failingDone = 1
      for await (const message of agent.messages) {
        seen.push(
          await message.done().then(
            () => "done",
            ({ code }: AgentError) => code
          )
        )
        await message.done()
        if (seen.length === 2) break
      }
      assert.deepStrictEqual(
        [seen, stub.done],
        [
          ["failed", "done"],
          [1, 2]
        ]
      )
      await agent.close()
    })
  })

  it.live("leaves no listener behind where a program stops waiting for a message", () => {
    const stub = new Stub()
    return beside(stub, async ({ state }) => {
      const agent = await SmartAgent.open({ state })
      const loop = agent.messages[Symbol.asyncIterator]() as AsyncIterableIterator<Message>
      const [first, second] = [loop.next(), loop.next()]
      await waitUntil("the loop to wait", () => stub.takes === 1)
      const over: IteratorResult<Message, undefined> = { done: true, value: undefined }
      assert.deepStrictEqual(await loop.return?.(), over)
      assert.deepStrictEqual([await first, await second, await loop.next()], [over, over, over])
      await waitUntil("nobody to listen", () => stub.listening === 0)
      stub.messages = [secure(1)]
      for await (const message of agent.messages) {
        assert.strictEqual(message.id, proof.id)
        break
      }
      assert.strictEqual(stub.takes, 2)
      await agent.close()
    })
  })

  it.live("leaves no listener behind on Effect, however often a stream is interrupted", () => {
    const stub = new Stub()
    const rounds = AgentLocalLimits.connections + 8
    return Effect.gen(function* () {
      const { state } = yield* running(stub)
      const agent = yield* OnEffect.make({ state })
      for (let round = 1; round <= rounds; round++) {
        const waiting = yield* Effect.forkChild(Stream.runDrain(agent.messages))
        yield* Effect.promise(() => waitUntil("the stream to wait", () => stub.takes === round))
        yield* Fiber.interrupt(waiting)
        yield* Effect.promise(() => waitUntil("nobody to listen", () => stub.listening === 0))
      }
      assert.deepStrictEqual(yield* agent.peers, [])
    }).pipe(Effect.scoped)
  })

  it.live("ends its loops when it is closed, and fails them when its program has ended", () => {
    const stub = new Stub()
    return beside(stub, async ({ end, state }) => {
      const [closing, left] = [await SmartAgent.open({ state }), await SmartAgent.open({ state })]
      const loop = async (agent: SmartAgent) => {
        for await (const _ of agent.messages) assert.fail("nothing came")
        return "ended"
      }
      const [quiet, broken] = [loop(closing), failure(loop(left))]
      await waitUntil("both loops to wait", () => stub.takes === 2)
      await closing.close()
      assert.strictEqual(await quiet, "ended")
      await end()
      assert.strictEqual((await broken).code, "gone")
      assert.strictEqual((await failure(left.closed)).code, "gone")
      assert.strictEqual((await failure(left.peers())).code, "gone")
    })
  })

  it.live("waits until it is accepted, and tells what it waits for", () => {
    const stub = new Stub()
    stub.phases = ["not_enrolled", "not_enrolled", "accepted"]
    return beside(stub, async ({ state }) => {
      const told: Array<State> = []
      const agent = await SmartAgent.open({ state, onState: (now) => void told.push(now) })
      assert.deepStrictEqual(
        told.map((now) => [now.state, now.name, now.claimCode]),
        [
          ["enrolling", null, "abcd"],
          ["known", "alice", null]
        ]
      )
      await agent.close()
      stub.phases = ["not_enrolled"]
      const off = new AbortController()
      const waiting = failure(SmartAgent.open({ state, signal: off.signal, onState: () => off.abort() }))
      assert.strictEqual((await waiting).code, "closed")
      assert.strictEqual((await failure(SmartAgent.open({ state, signal: off.signal }))).code, "closed")
    })
  })

  it.live("looks again where the program that ran the agent ends before it was accepted", () => {
    const [first, second] = [new Stub(), new Stub()]
    first.phases = ["not_enrolled"]
    return Effect.gen(function* () {
      const { end, state } = yield* running(first)
      // A program holds the folder all the time, so that none of one's own can.
      yield* lockState(state)
      const told: Array<string> = []
      const opening = SmartAgent.open({ state, onState: (now) => void told.push(now.state) })
      yield* Effect.promise(() => waitUntil("the first to be asked", () => told.length === 1))
      yield* Effect.promise(end)
      yield* serveAgent({ stateFolder: state, desk: second.desk })
      const agent = yield* Effect.promise(() => opening)
      assert.deepStrictEqual(told, ["enrolling", "known"])
      yield* Effect.promise(() => agent.close())
    }).pipe(Effect.scoped)
  })

  it.live("stays open, and tells what changes, where single looks at its state fail", () => {
    const stub = new Stub()
    return beside(stub, async ({ state }) => {
      const told: Array<string> = []
      stub.failing = 1
      const agent = await SmartAgent.open({ state, onState: (now) => void told.push(now.state) })
      assert.deepStrictEqual([told, stub.failing], [["known"], 0])
      stub.failing = 1
      await waitUntil("a look to fail", () => stub.failing === 0)
      stub.phases = ["revoked"]
      await waitUntil("the change to be told", () => told.length === 2)
      assert.deepStrictEqual(told, ["known", "revoked"])
      stub.failing = 1
      assert.strictEqual((await agent.reach("revoked")).state, "revoked")
      await agent.close()
      await agent.closed
    })
  })

  it.live("fails where an operator turned it away for good", () => {
    const stub = new Stub()
    stub.phases = ["revoked"]
    return beside(stub, async ({ state }) => {
      const error = await failure(SmartAgent.open({ state }))
      assert.deepStrictEqual([error.code, error.message.includes("revoked this device")], ["revoked", true])
    })
  })

  it.live("tells nothing to a socket that another user could have put there", () => {
    const stub = new Stub()
    return beside(stub, async ({ state }) => {
      chmodSync(state, 0o777)
      const refused = await failure(SmartAgent.open({ state }))
      assert.deepStrictEqual([refused.code, refused.message.includes("chmod 0700")], ["misconfigured", true])
      chmodSync(state, 0o750)
      await (await SmartAgent.open({ state })).close()
    })
  })

  it.live("says that a socket cannot have a path so long", () =>
    Effect.gen(function* () {
      const state = join(yield* temporaryFolder, "x".repeat(100))
      const refused = yield* Effect.promise(() =>
        failure(SmartAgent.open({ state, server: "http://127.0.0.1:9" }))
      )
      assert.deepStrictEqual(
        [refused.code, refused.message.includes("use a shorter state folder"), existsSync(state)],
        ["misconfigured", true, false]
      )
    })
  )

  it.live("says all that is wrong with its options", () =>
    Effect.gen(function* () {
      const state = yield* temporaryFolder
      const codes = [
        { state: "" },
        { state, invitation: "nonsense" },
        { state, server: "not a server", proxy: "neither" },
        { state, server: "http://127.0.0.1:9", edgeDevices: ["lamp", "lamp"] },
        { state }
      ]
      for (const options of codes) {
        const error = yield* Effect.promise(() => failure(SmartAgent.open(options)))
        assert.strictEqual(error.code, "misconfigured")
      }
      yield* lockState(state)
      const error = yield* Effect.promise(() =>
        failure(SmartAgent.open({ state, server: "http://127.0.0.1:9" }))
      )
      assert.strictEqual(error.code, "in_use")
    })
  )
})

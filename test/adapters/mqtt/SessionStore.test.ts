/** What the embedded broker keeps of sessions, and how long. */
import { assert, describe, it } from "@effect/vitest"
import type { Client, PublishPacket } from "aedes"
import { Effect } from "effect"
import { SessionStore } from "../../../src/adapters/mqtt/SessionStore.ts"
import { openInProcess } from "../../../src/adapters/sqlite/InProcessDatabase.ts"
import { messagesDatabase } from "../../../src/adapters/sqlite/messages/MessagesDatabase.ts"

const root = "mf2c"
const x = { id: "x" } as Client
const topic = `${root}/x/public`

/** A store where x has a session; what is asked of its database waits for `before`. */
const openStore = Effect.gen(function* () {
  const host = yield* openInProcess(messagesDatabase, ":memory:")
  const hooks = {
    before: (_method: string): Promise<void> => Promise.resolve(),
    say: (_will: PublishPacket): Promise<void> => Promise.resolve()
  }
  const troubles: Array<string> = []
  const said: Array<string> = []
  const store = new SessionStore({
    host: {
      call: (method, ...args) =>
        Effect.andThen(
          Effect.promise(() => hooks.before(method)),
          Effect.suspend(() => host.call(method, ...args))
        )
    },
    topicRoot: root,
    isGranted: () => true,
    run: Effect.runPromise,
    queuePackets: 100,
    onDropped: () => undefined,
    sayWill: async (will) => {
      await hooks.say(will)
      said.push(`${will.payload} ${will.qos}`)
    },
    onTrouble: (trouble) => void troubles.push(trouble)
  })
  yield* Effect.promise(() => store.setup({ id: "life" }))
  yield* Effect.promise(() => store.addSubscriptions(x, [{ topic: `${root}/x/#`, qos: 1 }]))
  let counter = 0
  /** As aedes does for a publication. */
  const publish = async (): Promise<number> => {
    const found = await store.subscriptionsByTopic(topic)
    const packet = { brokerId: "life", brokerCounter: ++counter, topic, payload: Buffer.from("x's"), qos: 1 }
    await store.outgoingEnqueueCombi(
      found.map(({ clientId }) => ({ clientId })),
      packet as unknown as Parameters<SessionStore["outgoingEnqueueCombi"]>[1]
    )
    return found.length
  }
  const waiting = () =>
    Effect.runPromise(Effect.map(host.call("waiting", "x", 0, 100), (rows) => rows.length))
  return { host, store, hooks, said, troubles, publish, waiting }
})

describe("a session that ends", () => {
  for (const [how, end] of [
    ["is forgotten", (store: SessionStore) => store.forget("x")],
    ["is begun anew", (store: SessionStore) => store.cleanSubscriptions(x)]
  ] as const) {
    it.effect(`when it ${how}: nothing on its way gets into the queue of whoever has the name next`, () =>
      Effect.gen(function* () {
        const { hooks, publish, store, waiting } = yield* openStore
        yield* Effect.promise(async () => {
          await publish()
          assert.strictEqual(await waiting(), 1)
          // One that found the session before its end, and comes to its queue behind that.
          let release: () => void = () => undefined
          const released = new Promise<void>((done) => {
            release = done
          })
          hooks.before = (method) => (method === "enqueue" ? released : Promise.resolve())
          const late = publish()
          let found = -1
          hooks.before = (method) => {
            if (method !== "forgetClient") return Promise.resolve()
            // And one that comes while the database works for the end.
            return publish().then((count) => {
              found = count
            })
          }
          await end(store)
          assert.strictEqual(found, 0)
          release()
          assert.strictEqual(await late, 1)
          assert.strictEqual(await waiting(), 0)
          assert.strictEqual(await publish(), 0)
          await store.addSubscriptions(x, [{ topic: `${root}/x/#`, qos: 1 }])
          assert.strictEqual(await publish(), 1)
          assert.strictEqual(await waiting(), 1)
        })
      }).pipe(Effect.scoped)
    )

    it.effect(`when it ${how}: what was being subscribed to goes as well`, () =>
      Effect.gen(function* () {
        const { hooks, publish, store } = yield* openStore
        yield* Effect.promise(async () => {
          let subscribing = Promise.resolve()
          hooks.before = (method) => {
            if (method !== "forgetClient") return Promise.resolve()
            hooks.before = () => Promise.resolve()
            subscribing = store.addSubscriptions(x, [{ topic: `${root}/x/#`, qos: 1 }])
            return subscribing
          }
          await end(store)
          assert.strictEqual(await publish(), 0)
        })
      }).pipe(Effect.scoped)
    )
  }
})

describe("a last will", () => {
  it.effect("that cannot be taken back is told of, and fails nothing: nobody takes that failure up", () =>
    Effect.gen(function* () {
      const { hooks, store, troubles } = yield* openStore
      hooks.before = () => Promise.reject(new Error("the disk is full"))
      assert.isUndefined(yield* Effect.promise(() => store.delWill(x)))
      assert.lengthOf(troubles, 1)
      assert.include(troubles[0], "x")
      assert.include(troubles[0], "the disk is full")
    }).pipe(Effect.scoped)
  )

  const leftBy = (client: string, qos = 1) => ({
    client,
    broker: "an earlier life",
    topic: `${root}/${client}/public`,
    qos,
    retain: false,
    payload: Buffer.from(`${client}'s`)
  })

  /** What aedes does at each fourth of its heartbeats, with what the store gives it. */
  const look = async (store: SessionStore): Promise<void> => {
    for await (const will of store.streamWill()) assert.fail(`aedes was given ${JSON.stringify(will)}`)
    // Beside it, the store does its own.
    await store.saying
  }

  const namesOf = (wills: ReadonlyArray<{ readonly client: string }>) => wills.map(({ client }) => client)

  it.effect(
    "left by an earlier life of the broker is said again where that failed, and the others at once",
    () =>
      Effect.gen(function* () {
        const { host, hooks, said, store, troubles } = yield* openStore
        for (const client of ["bob", "evil", "x"]) yield* host.call("putWill", leftBy(client, 2))
        yield* Effect.promise(async () => {
          hooks.before = (method) =>
            method === "wills" ? Promise.reject(new Error("the disk is full")) : Promise.resolve()
          await look(store)
          assert.lengthOf(troubles, 1)
          hooks.before = () => Promise.resolve()
          hooks.say = ({ topic }) =>
            topic.includes("evil") ? Promise.reject(new Error("nobody takes it")) : Promise.resolve()
          await look(store)
          assert.deepStrictEqual(said, [`bob's 1`, `x's 1`])
          assert.deepStrictEqual(namesOf(await Effect.runPromise(host.call("wills"))), ["evil"])
          assert.include(troubles[1], "nobody takes it")
          hooks.say = () => Promise.resolve()
          await look(store)
          assert.strictEqual(said.at(-1), "evil's 1")
          assert.lengthOf(troubles, 2)
          assert.lengthOf(await Effect.runPromise(host.call("wills")), 0)
        })
      }).pipe(Effect.scoped)
  )

  it.effect("of a connection goes with that, and not with the one before it, which ends later", () =>
    Effect.gen(function* () {
      const { host, store } = yield* openStore
      yield* Effect.promise(async () => {
        const connection = (): Client => ({ id: "x", closed: false }) as Client
        const put = async (client: Client, text: string) => {
          await store.delWill(client)
          await store.putWill(client, {
            topic,
            payload: Buffer.from(text)
          } as unknown as Parameters<SessionStore["putWill"]>[1])
        }
        const kept = async () =>
          (await Effect.runPromise(host.call("wills"))).map(({ payload }) => Buffer.from(payload).toString())
        // As aedes names a connection that has ended.
        const gone = async (client: Client) => {
          Object.assign(client, { closed: true })
          await store.delWill({ id: client.id } as Client)
        }
        const [first, second, third] = [connection(), connection(), connection()]
        await put(first, "of the first")
        await put(second, "of the second")
        await gone(first)
        assert.deepStrictEqual(await kept(), ["of the second"])
        await gone(second)
        assert.deepStrictEqual(await kept(), [])
        await put(third, "of the third")
        // One that has none leaves the one that stands to its owner.
        await store.delWill(connection())
        assert.deepStrictEqual(await kept(), ["of the third"])
        await gone(third)
        assert.deepStrictEqual(await kept(), [])
      })
    }).pipe(Effect.scoped)
  )
})

describe("a packet on its way", () => {
  it.effect("is known by its name until it is acknowledged, whatever else its reader answers", () =>
    Effect.gen(function* () {
      const { publish, store, waiting } = yield* openStore
      yield* Effect.promise(async () => {
        await publish()
        const packet = (fields: object) => ({ messageId: 7, ...fields }) as never
        await store.outgoingUpdate(x, packet({ cmd: "publish", brokerId: "life", brokerCounter: 1 }))
        // What aedes writes down where a reader answers as if to a packet of QoS 2.
        await store.outgoingUpdate(x, packet({ cmd: "pubrel" }))
        await store.outgoingClearMessageId(x, packet({ cmd: "pubcomp" }))
        assert.strictEqual(await waiting(), 0)
      })
    }).pipe(Effect.scoped)
  )
})

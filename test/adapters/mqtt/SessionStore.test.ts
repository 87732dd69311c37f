/** What the embedded broker keeps of sessions, and how long. */
import { assert, describe, it } from "@effect/vitest"
import type { Client } from "aedes"
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
  const hooks = { before: (_method: string): Promise<void> => Promise.resolve() }
  const troubles: Array<string> = []
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
  return { store, hooks, troubles, publish, waiting }
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
})

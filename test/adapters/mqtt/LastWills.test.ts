/** What the embedded broker does with last wills: no failure of its database and no will of anybody harms others. */
import { afterEach, assert, describe, it, vi } from "@effect/vitest"
import { Effect } from "effect"
import { Limits } from "../../../src/schemas/Limits.ts"
import { Bench, root, textsOf } from "../../support/brokerBench.ts"
import { waitUntil } from "../../support/Program.ts"

let bench: Bench
afterEach(() => bench.remove())

const tooDeep = "/a".repeat(Limits.messagingTopicLevels)

describe("a last will", () => {
  it("that cannot be taken back for the moment turns nobody away, and no error is left to nobody", async () => {
    bench = new Bench()
    await bench.open()
    const left: Array<unknown> = []
    const note = (error: unknown) => void left.push(error)
    process.on("unhandledRejection", note)
    try {
      let failures = 0
      bench.before = (method) =>
        Effect.promise(async () => {
          if (method !== "takeWill") return
          failures++
          throw new Error("the disk is full")
        })
      const will = { topic: `${root}/bob/public`, text: "gone" }
      const alice = await bench.client("alice", { will })
      const bob = await bench.client("bob")
      const heard = textsOf(bob)
      await bob.subscribeAsync(`${root}/bob/#`, { qos: 1 })
      alice.stream.destroy()
      await waitUntil("alice's will", () => heard.includes("gone"))
      await waitUntil("its end", () => failures === 3)
      // Node tells of what nobody took up when the turn has ended.
      await new Promise((done) => setImmediate(done))
      assert.deepStrictEqual(left, [])
    } finally {
      process.off("unhandledRejection", note)
    }
  })

  it("that may never be said is dropped and counted when its owner comes, who may stay", async () => {
    bench = new Bench()
    await bench.open()
    for (const [name, topic] of [
      ["deep", `${root}/deep/public${tooDeep}`],
      ["wild", `${root}/wild/public/+`],
      ["all", `${root}/all/public/#`],
      ["foreign", `${root}/bob/private`],
      ["good", `${root}/good/public`]
    ] as const)
      await bench.client(name, { will: { topic, text: "gone" } })
    assert.deepStrictEqual(bench.refused, [
      "deep not_permitted",
      "wild not_permitted",
      "all not_permitted",
      "foreign not_permitted"
    ])
    const kept = await Effect.runPromise(bench.database.call("wills"))
    assert.deepStrictEqual(
      kept.map(({ client }) => client),
      ["good"]
    )
  })

  for (const qos of [0, 1, 2] as const)
    it(`of QoS ${qos} is heard, and cuts nobody off`, async () => {
      bench = new Bench()
      await bench.open()
      const bob = await bench.client("bob")
      const heard = textsOf(bob)
      await bob.subscribeAsync(`${root}/bob/#`, { qos: 2 })
      const will = { topic: `${root}/bob/public`, text: "gone", qos }
      const alice = await bench.client("alice", { will })
      alice.stream.destroy()
      await waitUntil("alice's will", () => heard.includes("gone"))
      const carol = await bench.client("carol")
      await carol.publishAsync(`${root}/bob/public`, "and on", { qos: 1 })
      await waitUntil("what comes then", () => heard.includes("and on"))
      assert.isTrue(bob.connected)
    })

  it("that an earlier life of the broker left ends no later one, whatever it is and whatever fails", async () => {
    // aedes looks for such wills at each fourth of its heartbeats.
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] })
    try {
      bench = new Bench()
      await bench.open()
      const ended = Effect.runPromise(bench.broker.ended)
      const wills = async () =>
        (await Effect.runPromise(bench.database.call("wills"))).map(({ client }) => client)
      for (const [client, topic] of [
        ["evil", `${root}/evil/public${tooDeep}`],
        ["good", `${root}/broker-services/status`]
      ] as const)
        await Effect.runPromise(
          bench.database.call("putWill", {
            client,
            broker: "an earlier life",
            topic,
            qos: 2,
            retain: false,
            payload: Buffer.from("gone")
          })
        )
      const look = () => vi.advanceTimersByTime(20_000)
      let failures = 0
      bench.before = (method) =>
        Effect.promise(async () => {
          if (method === "wills" && failures++ === 0) throw new Error("the disk is full")
        })
      look()
      await waitUntil("a look that fails", () => failures === 1)
      bench.take = () => Effect.promise(() => Promise.reject(new Error("nobody is there for it")))
      await waitUntil("one will less", async () => {
        look()
        return (await wills()).length === 1
      })
      assert.deepStrictEqual(await wills(), ["good"])
      assert.deepStrictEqual(bench.refused, ["evil not_permitted"])
      const before = bench.received.length
      bench.take = () => Effect.void
      await waitUntil("none", async () => {
        look()
        return (await wills()).length === 0
      })
      assert.isAbove(bench.received.length, before)
      assert.strictEqual(await Promise.race([ended, Promise.resolve("it stands")]), "it stands")
    } finally {
      vi.useRealTimers()
    }
  })
})

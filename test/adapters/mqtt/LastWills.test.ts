/** What the embedded broker does with last wills: no failure of its database and no will of anybody harms others. */
import { afterEach, assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Bench, root, textsOf } from "../../support/brokerBench.ts"
import { waitUntil } from "../../support/Program.ts"

let bench: Bench
afterEach(() => bench.remove())

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
})

/** A session's queue, and what comes while its owner is given it: everything in the order it came. */
import { afterEach, assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import mqtt, { type MqttClient } from "mqtt"
import { Bench, root, textsOf } from "../../support/brokerBench.ts"
import { waitUntil } from "../../support/Program.ts"

let bench: Bench
afterEach(() => bench.remove())

const publish = (text: string) =>
  Effect.orDie(bench.broker.publish(`${root}/bob/public`, new TextEncoder().encode(text)))

/** Bob has a session, and is away. */
const leaveBob = async (): Promise<void> => {
  const before = await bench.client("bob")
  await before.subscribeAsync(`${root}/bob/#`, { qos: 1 })
  await before.endAsync()
}

/** Bob comes again, and hears from the first packet on. */
const bobComes = (): { readonly bob: MqttClient; readonly heard: Array<string> } => {
  const bob = mqtt.connect(bench.broker.addresses[0] as string, {
    clientId: "bob",
    username: "bob",
    password: "agent",
    clean: false,
    reconnectPeriod: 0
  })
  bob.on("error", () => undefined)
  bench.clients.push(bob)
  return { bob, heard: textsOf(bob) }
}

const upTo = (count: number): Array<string> => Array.from({ length: count }, (_, index) => `${index}`)

describe("the queue of a session", () => {
  for (const [when, count] of [
    ["before", 200],
    ["after", 200],
    ["after", 0]
  ] as const) {
    it(`of ${count} is not overtaken by what comes ${when} each look at it, and nothing falls between`, async () => {
      bench = new Bench()
      await bench.open()
      await leaveBob()
      for (const text of upTo(count)) await Effect.runPromise(publish(text))
      let sent = count
      let looks = 0
      bench[when] = (method) =>
        Effect.suspend(() => {
          if (method !== "waiting" || ++looks > 10) return Effect.void
          return Effect.forEach([1, 2, 3], () => publish(`${sent++}`), { discard: true })
        })
      const { heard } = bobComes()
      await waitUntil("everything", () => sent > count && heard.length >= sent)
      await Effect.runPromise(publish("the last"))
      await waitUntil("what comes then", () => heard.includes("the last"))
      assert.deepStrictEqual(heard, [...upTo(sent), "the last"])
      assert.isAbove(looks, 1)
    })
  }

  it("is not overtaken while its owner reads nothing", async () => {
    bench = new Bench()
    await bench.open()
    await leaveBob()
    const large = "x".repeat(250_000)
    for (const text of upTo(24)) await Effect.runPromise(publish(`${text} ${large}`))
    const { bob, heard } = bobComes()
    const stream = () => bob.stream as unknown as { pause: () => void; resume: () => void }
    bob.once("connect", () => stream().pause())
    let looks = 0
    bench.after = (method) => Effect.sync(() => void (method === "waiting" && looks++))
    await waitUntil("the first look", () => looks > 0)
    for (let index = 24; index < 30; index++) await Effect.runPromise(publish(`${index} live`))
    stream().resume()
    await waitUntil("everything", () => heard.length >= 30)
    assert.deepStrictEqual(
      heard.map((text) => text.split(" ", 1)[0]),
      upTo(30)
    )
  })

  it("holds nothing back of what stands in no queue", async () => {
    bench = new Bench()
    await bench.open()
    const alice = await bench.client("alice")
    await bench.know("alice")
    await alice.publishAsync(`${root}/alice/public/where`, "kept", { qos: 1, retain: true })
    const before = await bench.client("bob")
    await before.subscribeAsync(`${root}/bob/public`, { qos: 0 })
    await before.endAsync()
    let release: () => void = () => undefined
    const released = new Promise<void>((done) => {
      release = done
    })
    let isGiven = false
    bench.before = (method) =>
      Effect.promise(async () => {
        if (method !== "waiting") return
        isGiven = true
        await released
      })
    const { bob, heard } = bobComes()
    await waitUntil("the look at its queue", () => isGiven)
    await Effect.runPromise(publish("of QoS 0"))
    await bob.subscribeAsync(`${root}/alice/public/#`, { qos: 1 })
    await waitUntil("both", () => heard.length === 2)
    assert.sameMembers(heard, ["of QoS 0", "kept"])
    release()
  })
})

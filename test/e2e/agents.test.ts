/** Two built devices as agents of a built server: what they send each other, whatever is killed meanwhile. */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { agentWhen, askAgent, inboxOf, isKnown, peersOf, sendBy } from "../support/agents.ts"
import { type BuiltDevice, BuiltFleet } from "../support/BuiltFleet.ts"
import { waitUntil } from "../support/Program.ts"

const patienceMs = 180_000
const levels = ["public", "protected", "private", "end_to_end"] as const

describe("agents", () => {
  let fleet: BuiltFleet
  let alice: BuiltDevice
  let bob: BuiltDevice

  beforeAll(async () => {
    fleet = await BuiltFleet.withServer()
    const settings = ["agent.visible = true"]
    alice = await fleet.acceptedDevice("alice", { settings })
    bob = await fleet.acceptedDevice("bob", { settings })
    await Promise.all([isKnown(alice), isKnown(bob)])
    await waitUntil("alice to see bob", async () => (await peersOf(alice)).includes("bob"), patienceMs)
  }, patienceMs)
  afterAll(() => fleet?.close())

  it(
    "exchange a message of each level, and pings",
    async () => {
      for (const level of levels) await sendBy(alice, level, ["bob"], { level }, "a test")
      const came = await inboxOf(bob, levels.length)
      expect(came.map(({ message }) => message.body)).toEqual(
        expect.arrayContaining(levels.map((level) => ({ level })))
      )
      expect(came).toHaveLength(levels.length)
      for (const { message } of came) {
        const { level } = message.body as { readonly level: string }
        expect(message["subject"]).toBe("a test")
        if (level === "public") expect(message["claimed_from"]).toBe("alice")
        else expect(message).toMatchObject({ from: "alice", level, to: ["bob"] })
      }
      for (const to of ["bob", "broker-services"])
        expect(await askAgent(alice, { request: "ping", to })).toBeGreaterThan(0)
    },
    patienceMs
  )

  it(
    "lose and double nothing when the server, a recipient and a sender are killed",
    async () => {
      const sent: Array<string> = []
      const send = async (count: number) => {
        for (let index = 0; index < count; index++) {
          const body = `message ${sent.length}`
          sent.push(body)
          await sendBy(alice, levels[1 + (sent.length % 3)] as string, ["bob"], body)
        }
      }
      await send(10)
      await fleet.server.crash()
      await send(10)
      await bob.program.crash()
      await fleet.startServer()
      await send(10)
      await agentWhen(alice, "to have sent all", ({ queued }) => queued === 0)
      await send(5)
      await alice.program.crash()
      bob.program.start()
      alice.program.start()
      await isKnown(alice)
      await send(5)
      const came = await inboxOf(bob, sent.length)
      expect(came.map(({ message }) => message.body).sort()).toEqual([...sent].sort())
    },
    2 * patienceMs
  )

  it(
    "go on with a key that was changed while they were online",
    async () => {
      const changed = await fleet.run("client", ["keys", "rotate", "--state", bob.state])
      expect(changed, changed.stderr).toMatchObject({ code: 0 })
      const keyOf = async () => {
        const peers = await askAgent<
          ReadonlyArray<{ readonly agent: string; readonly agreement: { readonly version: number } }>
        >(alice, { request: "peers" })
        return peers.find(({ agent }) => agent === "bob")?.agreement.version === 2
      }
      await waitUntil("the new key in the list", keyOf, patienceMs)
      for (const level of ["private", "end_to_end"]) await sendBy(alice, level, ["bob"], level)
      const came = await inboxOf(bob, 2)
      expect(came.map(({ message }) => message.body).sort()).toEqual(["end_to_end", "private"])
      // Of lists, and of answers to handshakes, that overtake each other, the older ones are refused.
      const { replayed = 0, ...others } = (await isKnown(bob)).refused
      expect(others).toEqual({})
      expect(replayed).toBeLessThanOrEqual(3)
    },
    patienceMs
  )

  it(
    "are cut off when they are revoked, whatever they do themselves",
    async () => {
      // It can neither hear of it nor leave by itself.
      process.kill(bob.clientPid() as number, "SIGSTOP")
      await fleet.ask(["devices", "revoke", "bob", "--yes"])
      await waitUntil(
        "alice to hear of bob no more",
        async () => !(await peersOf(alice)).includes("bob"),
        patienceMs,
        () => fleet.server.log().slice(-3_000)
      )
      process.kill(bob.clientPid() as number, "SIGCONT")
      await agentWhen(bob, "to have no trust", ({ state }) => state === "no_trust")
      await sendBy(alice, "private", ["bob"], "too late")
      await agentWhen(alice, "to have sent it", ({ queued }) => queued === 0)
      expect((await agentWhen(bob, "to have nothing", () => true)).waiting).toBe(0)
    },
    patienceMs
  )
})

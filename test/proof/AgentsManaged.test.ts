/** What an operator sees and decides of agents: who is there, what is refused, who may write to whom, another name, an older root. */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { agentWhen, inboxOf, isKnown, sendBy } from "../support/agents.ts"
import { type BuiltDevice, BuiltFleet } from "../support/BuiltFleet.ts"
import { waitUntil } from "../support/Program.ts"

const patienceMs = 180_000

interface Listed {
  readonly agents: ReadonlyArray<{ readonly agent: string; readonly device: string; readonly status: string }>
}
interface Refused {
  readonly refusals: ReadonlyArray<{ readonly agent: string; readonly code: string; readonly count: number }>
}
interface Status {
  readonly messaging: { readonly in_root: boolean; readonly agents: Readonly<Record<string, number>> } | null
  readonly warnings: ReadonlyArray<string>
}

describe("an operator of agents", () => {
  let fleet: BuiltFleet
  let alice: BuiltDevice
  let bob: BuiltDevice

  beforeAll(async () => {
    fleet = await BuiltFleet.withServer({
      serverSettings: ['messaging.policy = [{ from = "alice", to = "*" }, { from = "*", to = "bob-*" }]']
    })
    alice = await fleet.acceptedDevice("alice", { settings: ["agent.visible = true"] })
    bob = await fleet.acceptedDevice("bob")
    await Promise.all([isKnown(alice), isKnown(bob)])
  })
  afterAll(() => fleet?.close())

  it("sees who is there, hidden ones too", async () => {
    const { agents } = await fleet.ask<Listed>(["agents", "list"])
    expect(agents.map(({ agent, status }) => [agent, status])).toEqual([
      ["alice", "C"],
      ["bob", "C"]
    ])
    const shown = await fleet.postern(["agents", "list", "--status", "connected"])
    expect(shown.stdout).toMatch(/^alice +dev_\w{8} +connected .* yes +- +0$/m)
    const nobody = await fleet.postern(["agents", "show", "carol"])
    expect(nobody).toMatchObject({ code: 1, stderr: expect.stringMatching(/no device of this name/) })
  })

  it("sees whose messages are refused and why, and that the policy holds", async () => {
    await sendBy(bob, "protected", ["alice"], "not allowed")
    await sendBy(alice, "protected", ["nobody"], "to nobody")
    await sendBy(alice, "private", ["bob"], "allowed")
    const came = await inboxOf(bob, 1)
    expect(came.map(({ message }) => message.body)).toEqual(["allowed"])
    const wanted = ["alice unknown_recipient 1", "bob not_permitted 1"]
    await waitUntil(
      "both refusals",
      async () => {
        const { refusals } = await fleet.ask<Refused>(["agents", "refusals"])
        const counts = refusals.map(({ agent, code, count }) => `${agent} ${code} ${count}`)
        return wanted.every((each) => counts.includes(each))
      },
      patienceMs
    )
    const shown = await fleet.postern(["agents", "show", "bob"])
    expect(shown.stdout).toMatch(/^bob +not_permitted +1 .*policy/m)
    expect(shown.stdout).toMatch(/^visible: +no/m)
    const status = await fleet.ask<Status>(["status"])
    expect(status.messaging).toMatchObject({ in_root: true, agents: { C: 2 } })
    expect(status.warnings.join()).toMatch(/postern agents refusals/)
  })

  it("has figures of it, and a doctor that looks at it", async () => {
    const token = readFileSync(await fleet.token("scraper", "viewer"), "utf8").trim()
    const answer = await fetch(`${fleet.address}/metrics`, { headers: { authorization: `Bearer ${token}` } })
    const text = await answer.text()
    expect(text).toMatch(/^postern_agents\{status="C"\} 2$/m)
    expect(text).toMatch(/^postern_mqtt_broker_open 1$/m)
    expect(text).toMatch(/^postern_messages_refused_total\{code="not_permitted"\} 1$/m)
    const examined = await fleet.postern(["doctor", "--state", fleet.serverFolder, "--json"])
    const { programs } = JSON.parse(examined.stdout) as {
      readonly programs: ReadonlyArray<{
        readonly findings: ReadonlyArray<{ readonly id: string; readonly state: string }>
      }>
    }
    const messaging = (programs[0]?.findings ?? []).filter(({ id }) => id.startsWith("messaging."))
    expect(messaging.map(({ id, state }) => `${id} ${state}`)).toEqual([
      "messaging.broker ok",
      "messaging.root ok",
      "messaging.policy ok"
    ])
  })

  it("gives an agent another name: it is gone under the old one, and comes again under the new one", async () => {
    await fleet.ask(["devices", "rename", "bob", "bob-2"])
    const names = async () => (await fleet.ask<Listed>(["agents", "list"])).agents.map(({ agent }) => agent)
    await waitUntil("the new name", async () => (await names()).join() === "alice,bob-2", patienceMs)
    await agentWhen(bob, "to be known as bob-2", ({ name, state }) => name === "bob-2" && state === "known")
    await sendBy(alice, "private", ["bob-2"], "hello again")
    expect((await inboxOf(bob, 1)).map(({ message }) => message.body)).toEqual(["hello again"])
  })

  it("puts the key of broker services into a root that lacks it: until then no agent believes them", async () => {
    const publish = async (key: string, file: string) => {
      const path = join(fleet.folder, file)
      await fleet.ask(["keys", "root", "draft", path, "--broker-services", key])
      await fleet.ask(["keys", "root", "sign", path, "--yes"])
      await fleet.ask(["keys", "root", "publish", path, "--yes"])
    }
    await publish("none", "without.json")
    const status = await fleet.ask<Status>(["status"])
    expect(status.messaging?.in_root).toBe(false)
    expect(status.warnings.join()).toMatch(/--broker-services server/)
    await agentWhen(alice, "to believe nobody", ({ state }) => state === "no_trust")
    await publish("server", "with.json")
    await isKnown(alice)
    expect((await fleet.ask<Status>(["status"])).messaging?.in_root).toBe(true)
  })
})

import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { claimedSender } from "../../../src/adapters/mosquitto/Arrivals.ts"
import { droppedTopic, uptimeTopic } from "../../../src/adapters/mosquitto/DynamicSecurity.ts"
import { fileNames } from "../../../src/adapters/mosquitto/MosquittoFiles.ts"
import { makeVitals } from "../../../src/adapters/mosquitto/Vitals.ts"
import type { AgentRow } from "../../../src/ports/MessageStore.ts"
import type { DeviceId, Name } from "../../../src/schemas/Ids.ts"
import { bareKinds, clientOf, root } from "../../support/bareBroker.ts"
import { until, withFolder } from "../../support/messaging.ts"
import type { RealMosquitto } from "../../support/mosquitto.ts"
import { waitUntil } from "../../support/Program.ts"
import { describeWith } from "../../support/requires.ts"

const accountsFile = (mosquitto: RealMosquitto | null) =>
  join(mosquitto?.folder as string, fileNames.security)

/** Waits until Mosquitto has written down that somebody has no account; it does not write it in one piece. */
const withoutAccount = (mosquitto: RealMosquitto | null, name: string) =>
  Effect.promise(() =>
    waitUntil(`the end of ${name}'s account`, () => {
      const text = readFileSync(accountsFile(mosquitto), "utf8")
      return text.endsWith("}") && !text.includes(`"username":\t"${name}"`)
    })
  )

const bytes = (text: string) => new TextEncoder().encode(text)

for (const kind of bareKinds)
  describeWith(kind.parts, `an agent that is expelled from ${kind.name}`, () => {
    it.live("is cut off at once, and its session is gone", () =>
      withFolder((path) =>
        Effect.gen(function* () {
          const { broker, client } = yield* kind.open(path)
          const bob = yield* client("bob")
          yield* Effect.promise(() => bob.subscribeAsync(`${root}/bob/#`, { qos: 1 }))
          assert.isTrue(yield* broker.publish(`${root}/bob/private`, bytes("before")))
          const closed = new Promise<void>((done) => bob.once("close", () => done()))
          yield* broker.expel("bob" as Name)
          yield* Effect.promise(() => closed)
          assert.isFalse(yield* broker.publish(`${root}/bob/private`, bytes("too late")))
          const again = yield* client("bob")
          const heard: Array<string> = []
          again.on("message", (_topic, payload) => void heard.push(payload.toString()))
          yield* Effect.promise(() => again.subscribeAsync(`${root}/bob/#`, { qos: 1 }))
          yield* broker.publish(`${root}/bob/private`, bytes("new"))
          yield* Effect.promise(() => waitUntil("the new one", () => heard.length > 0))
          assert.deepStrictEqual(heard, ["new"])
        })
      )
    )
  })

for (const kind of bareKinds)
  describeWith(kind.parts, `agents that are away from ${kind.name}`, () => {
    it.live("find what was for them alone, however often the lists changed", () =>
      withFolder((path) =>
        Effect.gen(function* () {
          const { broker, client } = yield* kind.open(path, { queuePackets: 10 })
          const heard: Array<string> = []
          const topics = [`${root}/bob/#`, `${root}/broker-services/discovery`]
          const come = Effect.gen(function* () {
            const bob = yield* client("bob", (_topic, text) => void heard.push(text))
            yield* Effect.promise(() => bob.subscribeAsync(topics, { qos: 1 }))
          })
          yield* Effect.scoped(come)
          const list = (text: string, retain: boolean) =>
            broker.publish(`${root}/broker-services/discovery`, bytes(text), { fleeting: true, retain })
          for (let version = 0; version < 40; version++) {
            yield* list(`list ${version}, part 1`, true)
            yield* list(`list ${version}, part 2`, false)
          }
          for (let n = 0; n < 5; n++)
            assert.isTrue(yield* broker.publish(`${root}/bob/private`, bytes(`message ${n}`)))
          yield* come
          yield* Effect.promise(() => waitUntil("the list", () => heard.includes("list 39, part 1")))
          yield* Effect.promise(() => waitUntil("the messages", () => heard.length >= 6))
          assert.deepStrictEqual(
            heard.filter((text) => text.startsWith("message")),
            ["message 0", "message 1", "message 2", "message 3", "message 4"]
          )
          assert.lengthOf(heard, 6)
          yield* list("list 40, part 2", false)
          yield* Effect.promise(() => waitUntil("a list to who is there", () => heard.length >= 7))
        })
      )
    )
  })

describeWith(["mosquitto"], "accounts at Mosquitto", () => {
  const kind = bareKinds[2] as (typeof bareKinds)[number]

  it.live("change their password when they are made anew, and take no other client id", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const { broker, fleet, mosquitto } = yield* kind.open(path)
        for (const name of ["alice", "bob"]) fleet.add(name)
        const passwordOf = (name: string) => broker.passwordFor(name as Name, fleet.ring(name).id as DeviceId)
        const old = (yield* passwordOf("alice")) as string
        assert.strictEqual(yield* passwordOf("alice"), old)
        const attempt = (username: string, clientId: string, password: string) =>
          Effect.scoped(
            clientOf(mosquitto?.address as string, { username, clientId, password }).pipe(
              Effect.match({ onFailure: () => "refused", onSuccess: () => "taken" })
            )
          )
        assert.strictEqual(yield* attempt("alice", "alice", old), "taken")
        assert.strictEqual(yield* attempt("alice", "bob", old), "refused")
        assert.strictEqual(yield* attempt("alice", "broker-services/private", old), "refused")
        assert.strictEqual(yield* attempt("bob", "bob", old), "refused")
        yield* broker.expel("alice" as Name)
        assert.strictEqual(yield* attempt("alice", "alice", old), "refused")
        const next = (yield* passwordOf("alice")) as string
        assert.notStrictEqual(next, old)
        assert.strictEqual(yield* attempt("alice", "alice", old), "refused")
        assert.strictEqual(yield* attempt("alice", "alice", next), "taken")
      })
    )
  )

  it.live("are made no more for a device that is revoked while it asks again and again", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const { broker, client, fleet, mosquitto } = yield* kind.open(path)
        const alice = yield* client("alice")
        const device = fleet.ring("alice").id as DeviceId
        const passwords = new Set<string | null>()
        let refused = 0
        const ask = Effect.match(broker.passwordFor("alice" as Name, device), {
          onSuccess: (password) => void passwords.add(password),
          onFailure: () => void refused++
        })
        const asking = Effect.forever(Effect.andThen(ask, Effect.yieldNow))
        for (let index = 0; index < 4; index++) yield* Effect.forkScoped(asking)
        yield* Effect.promise(() => waitUntil("a password", () => passwords.size > 0))
        const closed = new Promise<void>((done) => alice.once("close", () => done()))
        fleet.decide("alice", "revoked")
        yield* broker.expel("alice" as Name)
        yield* Effect.promise(() => closed)
        refused = 0
        yield* Effect.promise(() => waitUntil("a hundred refusals", () => refused > 100))
        yield* withoutAccount(mosquitto, "alice")
        for (const password of passwords)
          yield* Effect.flip(
            Effect.scoped(
              clientOf(mosquitto?.address as string, {
                username: "alice",
                clientId: "alice",
                password: password as string
              })
            )
          )
      })
    )
  )

  it.live("end within seconds, of revoked devices that the directory has never heard of", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const { client, fleet, mosquitto } = yield* kind.open(path)
        const alice = yield* client("alice")
        const closed = new Promise<void>((done) => alice.once("close", () => done()))
        fleet.decide("alice", "revoked")
        yield* Effect.promise(() => closed)
        yield* withoutAccount(mosquitto, "alice")
      })
    )
  )

  it.live("are made anew, with the passwords they had, when Mosquitto has lost them", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const { broker, client, fleet, mosquitto } = yield* kind.open(path)
        yield* client("alice")
        const passwordOf = broker.passwordFor("alice" as Name, fleet.ring("alice").id as DeviceId)
        const old = yield* passwordOf
        yield* Effect.promise(() => mosquitto?.stop("SIGKILL") as Promise<void>)
        const text = readFileSync(accountsFile(mosquitto), "utf8")
        // As it may be found after a kill: Mosquitto gives the file its name before it is written.
        writeFileSync(accountsFile(mosquitto), "")
        yield* Effect.promise(() => mosquitto?.start() as Promise<void>)
        yield* Effect.flip(client("carol"))
        yield* Effect.promise(() => mosquitto?.stop() as Promise<void>)
        const { clients, ...rest } = JSON.parse(text)
        const first = clients.filter(
          ({ username }: { readonly username: string }) => username === "broker-services"
        )
        assert.lengthOf(first, 1)
        writeFileSync(accountsFile(mosquitto), JSON.stringify({ ...rest, clients: first }))
        yield* Effect.promise(() => mosquitto?.start() as Promise<void>)
        const now = yield* until(
          "alice's password",
          Effect.orElseSucceed(passwordOf, () => undefined)
        )
        assert.strictEqual(now, old)
        yield* client("alice")
      })
    )
  )

  it.live("are gone when Mosquitto comes back, of devices that were revoked meanwhile", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const { broker, fleet, mosquitto } = yield* kind.open(path)
        fleet.add("alice")
        const device = fleet.ring("alice").id as DeviceId
        const password = (yield* broker.passwordFor("alice" as Name, device)) as string
        yield* Effect.promise(() => mosquitto?.stop("SIGKILL") as Promise<void>)
        fleet.decide("alice", "revoked")
        const late = yield* Effect.flip(broker.expel("alice" as Name))
        assert.include(late.reason, "alice is cut off as soon as Mosquitto is reached again")
        yield* Effect.promise(() => mosquitto?.start() as Promise<void>)
        yield* until(
          "the account's end",
          Effect.scoped(
            clientOf(mosquitto?.address as string, { username: "alice", clientId: "alice", password }).pipe(
              Effect.match({ onFailure: () => true, onSuccess: () => undefined })
            )
          )
        )
      })
    )
  )

  it.live("keep apart what names nobody, or somebody who has none", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const { client, told } = yield* kind.open(path)
        const alice = yield* client("alice")
        const publish = (inbox: string, text: string) =>
          Effect.promise(() => alice.publishAsync(`${root}/broker-services/${inbox}`, text, { qos: 1 }))
        yield* publish("private", "no JSON")
        yield* publish("private", '{"from":"broker-services"}')
        yield* publish("private", '{"from":"mallory"}')
        const status = '{"agent":"alice","n":1}'
        yield* publish("status", status)
        yield* publish("status", status)
        yield* publish("status", '{"agent":"alice","n":2}')
        yield* publish("private", '{"from":"alice"}')
        yield* Effect.promise(() => waitUntil("what is good", () => told.received.length === 3))
        yield* Effect.promise(() => waitUntil("what is not", () => told.refused.length === 3))
        assert.deepStrictEqual([...told.refused].sort(), [
          "null malformed",
          "null malformed",
          "null unknown_sender"
        ])
        // A status that comes again, by whomever, is no news.
        assert.deepStrictEqual(
          told.received
            .map(({ from, payload, topic }) => `${from} ${topic} ${new TextDecoder().decode(payload)}`)
            .sort(),
          [
            `alice ${root}/broker-services/private {"from":"alice"}`,
            `alice ${root}/broker-services/status {"agent":"alice","n":1}`,
            `alice ${root}/broker-services/status {"agent":"alice","n":2}`
          ]
        )
      })
    )
  )
})

describeWith(["mosquitto"], "what Mosquitto is to retain, fleeting or not", () => {
  const kind = bareKinds[2] as (typeof bareKinds)[number]

  it.live("is on its disk when it counts as published", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const { broker, client, mosquitto } = yield* kind.open(path)
        const topic = `${root}/bob/public/handshake`
        const how = { fleeting: true, retain: true }
        for (const words of ["first", "second", "", "last"]) {
          yield* until(
            "Mosquitto",
            Effect.orElseSucceed(broker.publish(topic, bytes(words), how), () => undefined)
          )
          yield* Effect.promise(() => mosquitto?.stop("SIGKILL") as Promise<void>)
          yield* Effect.promise(() => mosquitto?.start() as Promise<void>)
          const heard: Array<string> = []
          const listen = Effect.gen(function* () {
            const alice = yield* until(
              "alice to be let in",
              Effect.orElseSucceed(
                client("alice", (at, text) => void heard.push(`${at} ${text}`)),
                () => undefined
              )
            )
            yield* Effect.promise(() => alice.subscribeAsync(`${root}/+/public/#`, { qos: 1 }))
            // What is retained comes before this.
            yield* Effect.promise(() => alice.publishAsync(`${root}/alice/public/end`, "end", { qos: 1 }))
            yield* Effect.promise(() => waitUntil("the end", () => heard.some((at) => at.endsWith("end"))))
          })
          yield* Effect.scoped(listen)
          const retained = heard.filter((at) => at.startsWith(topic))
          assert.deepStrictEqual(retained, words === "" ? [] : [`${topic} ${words}`])
        }
      })
    )
  )
})

describe("what Mosquitto tells of itself", () => {
  const row = (agent: string, status: AgentRow["status"], statusAtMs: number) =>
    ({ agent, status, statusAtMs }) as unknown as AgentRow

  it.effect("shows who went with it, for their wills did too", () =>
    Effect.gen(function* () {
      const rows = [row("back", "C", 9_500), row("left", "DG", 1_000), row("lost", "C", 7_000)]
      const gone: Array<string> = []
      const vitals = makeVitals(
        { all: () => rows, get: () => undefined, set: () => undefined, delete: () => undefined },
        { presence: (name, connected) => Effect.sync(() => void gone.push(`${name} ${connected}`)) }
      )
      yield* TestClock.adjust(10_000)
      vitals.connected(9_200)
      yield* vitals.told(droppedTopic, "7")
      yield* vitals.told(uptimeTopic, "nonsense")
      assert.deepStrictEqual(gone, [])
      yield* vitals.told(uptimeTopic, "2 seconds")
      assert.deepStrictEqual(gone, ["lost false"])
      // Once for each connection.
      yield* vitals.told(uptimeTopic, "2 seconds")
      assert.lengthOf(gone, 1)
    })
  )

  it.effect("is silent about a Mosquitto that ran all the time", () =>
    Effect.gen(function* () {
      const gone: Array<string> = []
      const vitals = makeVitals(
        {
          all: () => [row("here", "C", 5_000)],
          get: () => undefined,
          set: () => undefined,
          delete: () => undefined
        },
        { presence: (name) => Effect.sync(() => void gone.push(name)) }
      )
      yield* TestClock.adjust(60_000)
      vitals.connected(50_000)
      yield* vitals.told(uptimeTopic, "59 seconds")
      assert.deepStrictEqual(gone, [])
    })
  )
})

describe("whom a publication claims to be from", () => {
  it("is read off the document, and never broker services", () => {
    assert.strictEqual(claimedSender(bytes('{"from":"alice"}')), "alice")
    assert.strictEqual(claimedSender(bytes('{"agent":"bob"}')), "bob")
    for (const text of [
      "",
      "{}",
      "[]",
      "null",
      '{"from":"Alice!"}',
      '{"from":"broker-services"}',
      '{"from":7}'
    ])
      assert.isUndefined(claimedSender(bytes(text)), text)
  })
})

import { connect } from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import mqtt from "mqtt"
import { NativeCrypto } from "../../src/adapters/NativeCrypto.ts"
import { canonicalBytes } from "../../src/crypto/CanonicalJson.ts"
import { toWire } from "../../src/crypto/Messages.ts"
import { type Receiver, receive } from "../../src/crypto/Reception.ts"
import { signJson } from "../../src/crypto/SignedJson.ts"
import { type Message, MessageLimits, type MessageRefusal, type Sealed } from "../../src/schemas/Message.ts"
import { type AgentName, brokerServices } from "../../src/schemas/Topics.ts"
import { type BrokerKind, embedded, type Messaging, mosquitto3 } from "../support/brokers.ts"
import {
  Fleet,
  refusedOf,
  ringOf,
  type Services,
  ServicesKeys,
  serverKeys,
  startServices,
  until,
  withFolder
} from "../support/messaging.ts"
import { newId, RogueAgent, signerOf } from "../support/RogueAgent.ts"
import { describeWith } from "../support/requires.ts"

const keys = new ServicesKeys()
const servicesKey = keys.ring.agreementKey

interface Cast {
  readonly alice: RogueAgent
  readonly bob: RogueAgent
  readonly mallory: RogueAgent
}

/** One thing that must be refused: who says it, what it is counted as, and what they say. */
interface Refusal {
  readonly what: string
  readonly code: MessageRefusal
  /** Whose it is counted as; mallory's where nobody is named. */
  readonly of?: "alice" | "mallory" | null
  readonly say: (cast: Cast) => Promise<unknown>
  /** Where the broker does not tell who sent it. Null: there it is its signer's word, or the broker refuses it in silence. */
  readonly unsent?: { readonly code?: MessageRefusal; readonly of: "alice" | "mallory" | null } | null
}

const toServices = (who: RogueAgent, message: Message, changes: Partial<Sealed> = {}) =>
  who.sealed({ ...message, level: "private" }, brokerServices, servicesKey, changes)
const privateOf = (who: RogueAgent, changes: Partial<Message> = {}) =>
  who.message(["bob"], { level: "private", ...changes })

/** Without the signature, and signed by another. */
const signedBy = <A extends Message | Sealed>(
  who: RogueAgent,
  { signature: _, signing_key: _key, ...rest }: A
): A => signJson<A>(NativeCrypto, signerOf(who.ring), rest as never)

const bent = (wire: Uint8Array): Uint8Array => {
  const text = new TextDecoder().decode(wire)
  return new TextEncoder().encode(text.replace('"body":"hello"', '"body":"jello"'))
}

const forgeries: ReadonlyArray<Refusal> = [
  {
    what: "a message of alice's, forged with another key",
    code: "bad_signature",
    say: ({ mallory }) =>
      mallory.publish(
        brokerServices,
        "protected",
        toWire(mallory.message(["bob"], {}, signerOf(ringOf("device", "somebody"))))
      )
  },
  {
    what: "a message in alice's name, from mallory's connection",
    code: "wrong_sender",
    unsent: { code: "bad_signature", of: "alice" },
    say: ({ mallory }) =>
      mallory.publish(
        brokerServices,
        "protected",
        toWire(mallory.message(["bob"], { from: "alice" as never }))
      )
  },
  {
    what: "alice's own message, published by mallory",
    code: "wrong_sender",
    unsent: null,
    say: ({ alice, mallory }) => mallory.publish(brokerServices, "protected", toWire(alice.message(["bob"])))
  },
  {
    what: "alice's message, stripped of her signature and signed by mallory",
    code: "wrong_sender",
    unsent: { code: "bad_signature", of: "alice" },
    say: ({ alice, mallory }) =>
      mallory.publish(brokerServices, "protected", toWire(signedBy(mallory, alice.message(["bob"]))))
  },
  {
    what: "alice's sealed message, stripped of her signature and signed by mallory in her own name",
    code: "not_opened",
    say: ({ alice, mallory }) => {
      const taken = { ...toServices(alice, privateOf(alice)), from: mallory.name }
      return mallory.publish(brokerServices, "private", toWire(signedBy(mallory, taken)))
    }
  },
  {
    what: "a message of alice's in a box of mallory's",
    code: "wrong_sender",
    say: ({ alice, mallory }) => {
      const message = privateOf(alice)
      const box = mallory.sealed(message, brokerServices, servicesKey, { from: mallory.name })
      return mallory.publish(brokerServices, "private", toWire(box))
    }
  },
  {
    what: "a message of which a byte was changed",
    code: "bad_signature",
    say: ({ mallory }) => mallory.publish(brokerServices, "protected", bent(toWire(mallory.message(["bob"]))))
  }
]

const misplaced: ReadonlyArray<Refusal> = [
  {
    what: "a protected message in the private inbox",
    code: "malformed",
    say: ({ mallory }) => mallory.publish(brokerServices, "private", toWire(mallory.message(["bob"])))
  },
  {
    what: "a private message in the protected inbox",
    code: "wrong_level",
    say: ({ mallory }) => mallory.publish(brokerServices, "protected", toWire(privateOf(mallory)))
  },
  {
    what: "a protected message, sealed as if it were a private one",
    code: "wrong_level",
    say: ({ mallory }) =>
      mallory.publish(
        brokerServices,
        "private",
        toWire(mallory.sealed(mallory.message(["bob"]), brokerServices, servicesKey))
      )
  },
  {
    what: "an end-to-end message that is sealed to broker services",
    code: "wrong_recipient",
    say: ({ mallory }) =>
      mallory.publish(
        brokerServices,
        "private",
        toWire(toServices(mallory, privateOf(mallory), { level: "end_to_end" }))
      )
  },
  {
    what: "a private message that is sealed to its recipient",
    code: "wrong_recipient",
    say: ({ bob, mallory }) =>
      mallory.publish(
        brokerServices,
        "private",
        toWire(mallory.sealed(privateOf(mallory), bob.name, bob.ring.agreementKey, { level: "private" }))
      )
  },
  {
    what: "a private message whose outside has another id than its inside",
    code: "malformed",
    say: ({ mallory }) =>
      mallory.publish(
        brokerServices,
        "private",
        toWire(toServices(mallory, privateOf(mallory), { id: newId() }))
      )
  },
  {
    what: "a message put straight into a recipient's inbox",
    code: "not_permitted",
    unsent: null,
    say: ({ mallory }) => mallory.publish("bob", "protected", toWire(mallory.message(["bob"])))
  },
  {
    what: "a private message put straight into a recipient's inbox",
    code: "not_permitted",
    unsent: null,
    say: ({ bob, mallory }) =>
      mallory.publish(
        "bob",
        "private",
        toWire(mallory.sealed(privateOf(mallory), bob.name, bob.ring.agreementKey))
      )
  }
]

const untimely: ReadonlyArray<Refusal> = [
  {
    what: "a message that came before",
    code: "replayed",
    say: async ({ mallory }) => {
      const wire = toWire(mallory.message([], { to: ["nobody" as AgentName] }))
      for (let time = 0; time < 2; time++) await mallory.publish(brokerServices, "protected", wire)
    }
  },
  {
    what: "the id of a message that came before, under another",
    code: "replayed",
    say: async ({ mallory }) => {
      const id = newId()
      for (const body of ["one", "two"])
        await mallory.publish(brokerServices, "protected", toWire(mallory.message(["nobody"], { id, body })))
    }
  },
  {
    what: "an expired message",
    code: "expired",
    say: ({ mallory }) =>
      mallory.publish(
        brokerServices,
        "protected",
        toWire(
          mallory.message(["bob"], { issued_at_ms: Date.now() - 10_000, expires_at_ms: Date.now() - 1_000 })
        )
      )
  },
  {
    what: "an expired message that is sealed",
    code: "expired",
    say: ({ mallory }) => {
      const times = { issued_at_ms: Date.now() - 10_000, expires_at_ms: Date.now() - 1_000 }
      return mallory.publish(
        brokerServices,
        "private",
        toWire(toServices(mallory, privateOf(mallory, times)))
      )
    }
  },
  {
    what: "a message from the future",
    code: "from_the_future",
    say: ({ mallory }) => {
      const issued_at_ms = Date.now() + 10 * 60_000
      return mallory.publish(
        brokerServices,
        "protected",
        toWire(mallory.message(["bob"], { issued_at_ms, expires_at_ms: issued_at_ms + 60_000 }))
      )
    }
  },
  {
    what: "a message that would live for too long",
    code: "lives_too_long",
    say: ({ mallory }) =>
      mallory.publish(
        brokerServices,
        "protected",
        toWire(mallory.message(["bob"], { expires_at_ms: Date.now() + MessageLimits.lifetimeMs + 60_000 }))
      )
  }
]

const misshapen: ReadonlyArray<Refusal> = [
  {
    what: "a message with too large a body",
    code: "too_large",
    say: ({ mallory }) =>
      mallory.publish(
        brokerServices,
        "protected",
        toWire(mallory.message(["bob"], { body: "x".repeat(MessageLimits.messageBytes) }))
      )
  },
  {
    what: "more than any message has",
    code: "too_large",
    unsent: { of: null },
    say: ({ mallory }) =>
      mallory.publish(brokerServices, "private", new Uint8Array(MessageLimits.wireBytes + 1).fill(0x20))
  },
  {
    what: "bytes that are no JSON",
    code: "malformed",
    unsent: { of: null },
    say: ({ mallory }) => mallory.publish(brokerServices, "protected", new Uint8Array([0xff, 0x00, 0x7b]))
  },
  {
    what: "nothing at all",
    code: "malformed",
    unsent: { of: null },
    say: ({ mallory }) => mallory.publish(brokerServices, "private", new Uint8Array(0))
  },
  {
    what: "a message with a member too many",
    code: "malformed",
    say: ({ mallory }) =>
      mallory.publish(
        brokerServices,
        "protected",
        canonicalBytes({ ...mallory.message(["bob"]), and: "more" })
      )
  },
  {
    what: "a message that is not in its canonical form",
    code: "malformed",
    say: ({ mallory }) =>
      mallory.publish(
        brokerServices,
        "protected",
        new TextEncoder().encode(JSON.stringify(mallory.message(["bob"]), null, 1))
      )
  },
  {
    what: "a body as deep as JSON may be",
    code: "malformed",
    say: ({ mallory }) => {
      let body: Message["body"] = "deep"
      for (let depth = 0; depth < 22; depth++) body = [body]
      return mallory.publish(brokerServices, "protected", toWire(mallory.message(["bob"], { body })))
    }
  }
]

const addressed: ReadonlyArray<Refusal> = [
  {
    what: "a message to nobody known",
    code: "unknown_recipient",
    say: ({ mallory }) =>
      mallory.publish(brokerServices, "protected", toWire(mallory.message(["nobody", "broker-services"])))
  },
  {
    what: "a message to whom mallory may not write",
    code: "not_permitted",
    say: ({ mallory }) => mallory.publish(brokerServices, "protected", toWire(mallory.message(["carol"])))
  },
  {
    what: "a message sealed to a key that is not broker services'",
    code: "not_for_this_key",
    say: ({ mallory }) =>
      mallory.publish(
        brokerServices,
        "private",
        toWire(mallory.sealed(privateOf(mallory), brokerServices, ringOf("server", "another").agreementKey))
      )
  },
  {
    what: "a handshake of another",
    code: "wrong_sender",
    unsent: null,
    say: ({ alice, mallory }) => mallory.publish(brokerServices, "handshake", alice.handshake())
  },
  {
    what: "a handshake with a key that the device was not accepted with",
    code: "not_permitted",
    say: async ({ mallory }) => {
      const other = ringOf("device", "somebody")
      const changes = { device: mallory.ring.id as never }
      const handshake = Object.assign(Object.create(mallory) as RogueAgent, { ring: other })
      await mallory.publish(brokerServices, "handshake", handshake.handshake(changes))
    }
  },
  {
    what: "a status of another session",
    code: "replayed",
    say: ({ mallory }) =>
      mallory.publish(brokerServices, "status", mallory.status("DG", { session: newId() as never }))
  },
  {
    what: "a status of another agent",
    code: "bad_signature",
    unsent: null,
    say: ({ alice, mallory }) => mallory.publish(brokerServices, "status", alice.status("DU"))
  }
]

const total = (services: Services) =>
  Effect.map(services.store.refusals(1_000), (rows) => rows.reduce((sum, { count }) => sum + count, 0))

const cast = (
  fleet: Fleet,
  services: Services,
  passwordOf: Messaging["passwordOf"] = () => Effect.succeed(null)
) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const agents: Record<string, RogueAgent> = {}
      for (const name of ["alice", "bob", "mallory", "carol"]) {
        const password = await Effect.runPromise(passwordOf(name))
        const options = {
          server: serverKeys.id,
          address: services.address,
          ...(password === null ? {} : { password })
        }
        const agent = await RogueAgent.connect(name, fleet.ring(name), options)
        await agent.shakeHands()
        agents[name] = agent
      }
      return agents as unknown as Cast & { readonly carol: RogueAgent }
    }),
    (agents) => Effect.promise(() => Promise.all(Object.values(agents).map((agent) => agent.leave())))
  )

const newFleet = () => {
  const fleet = new Fleet()
  for (const name of ["alice", "bob", "mallory", "carol"]) fleet.add(name)
  return fleet
}

const inboxes = (agent: RogueAgent) =>
  agent.arrived.filter(({ topic }) => /\/(?:protected|private)$/.test(topic))

const receiverOf = (agent: RogueAgent): Receiver => ({
  name: agent.name,
  agreements: agent.ring.agreements,
  services: new Set([keys.ring.signingKey]),
  keyOf: () => undefined
})

const bodiesOf = (agent: RogueAgent): ReadonlyArray<unknown> =>
  inboxes(agent).map(({ payload, topic }) => {
    const inbox = topic.endsWith("private") ? "private" : "protected"
    const wire = new Uint8Array(payload)
    return Result.getOrThrow(receive(NativeCrypto, receiverOf(agent), inbox, wire, Date.now())).body
  })

const groups: ReadonlyArray<readonly [string, ReadonlyArray<Refusal>]> = [
  ["forged or stolen", forgeries],
  ["in the wrong place", misplaced],
  ["untimely", untimely],
  ["misshapen", misshapen],
  ["wrongly addressed", addressed]
]

/** What is refused over a broker, as it is counted there. */
const overBroker = (kind: BrokerKind, refusals: ReadonlyArray<Refusal>): ReadonlyArray<Refusal> =>
  kind === embedded
    ? refusals
    : refusals.flatMap((each) => {
        if (each.unsent === undefined) return [each]
        return each.unsent === null ? [] : [{ ...each, ...each.unsent }]
      })

for (const kind of [embedded, mosquitto3])
  describeWith(kind.parts, `broker services refuse and go on, over ${kind.name}`, () => {
    for (const [title, all] of groups) {
      it.live(`what is ${title}`, () =>
        withFolder((path) =>
          Effect.gen(function* () {
            const fleet = newFleet()
            const permits = (from: string, to: string) => !(from === "mallory" && to === "carol")
            const { passwordOf, services } = yield* kind.open(fleet, path, { keys, permits })
            const agents = yield* cast(fleet, services, passwordOf)
            const { bob, mallory } = agents
            const refusals = overBroker(kind, all)
            for (const [index, { code, of = "mallory", say, what }] of refusals.entries()) {
              const before = yield* refusedOf(services, of, code)
              yield* Effect.promise(() => say(agents))
              yield* until(
                `${what} to be counted as ${code}`,
                Effect.gen(function* () {
                  const now = yield* refusedOf(services, of, code)
                  return now > before ? now : undefined
                })
              )
              // The same sender's next good message goes its way.
              yield* Effect.promise(() =>
                mallory.publish(
                  brokerServices,
                  "protected",
                  toWire(mallory.message(["bob"], { body: index }))
                )
              )
            }
            yield* until(
              "the good messages",
              Effect.sync(() => (inboxes(bob).length >= refusals.length ? true : undefined))
            )
            assert.deepStrictEqual(
              bodiesOf(bob),
              refusals.map((_, index) => index)
            )
            for (const agent of Object.values(agents)) assert.isFalse(agent.closed, agent.name)
            assert.lengthOf(inboxes(agents.carol), 0)
          })
        )
      )
    }
  })

describeWith(mosquitto3.parts, "a signed word that another agent publishes, over Mosquitto", () => {
  it.live("is its signer's, and counts once", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const fleet = newFleet()
        const { passwordOf, services } = yield* mosquitto3.open(fleet, path, { keys })
        const { alice, bob, mallory } = yield* cast(fleet, services, passwordOf)
        const wire = toWire(alice.message(["bob"], { body: "alice's" }))
        for (let time = 0; time < 3; time++)
          yield* Effect.promise(() => mallory.publish(brokerServices, "protected", wire))
        yield* until(
          "the copies to be refused",
          Effect.map(refusedOf(services, "alice", "replayed"), (count) => (count === 2 ? count : undefined))
        )
        yield* until(
          "the message",
          Effect.sync(() => (inboxes(bob).length > 0 ? true : undefined))
        )
        assert.deepStrictEqual(bodiesOf(bob), ["alice's"])
      })
    )
  )
})

describe("broker services refuse, count and go on", () => {
  it.live("messages of those who have not shaken hands, and to those who never have", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const fleet = newFleet()
        const services = yield* startServices(fleet, path, { keys })
        const options = { server: serverKeys.id, address: services.address }
        const alice = yield* Effect.promise(() => RogueAgent.connect("alice", fleet.ring("alice"), options))
        yield* Effect.promise(() =>
          alice.publish(brokerServices, "protected", toWire(alice.message(["bob"])))
        )
        yield* until(
          "the refusal",
          Effect.map(total(services), (count) => (count === 1 ? count : undefined))
        )
        yield* Effect.promise(() => alice.shakeHands())
        yield* Effect.promise(() =>
          alice.publish(brokerServices, "protected", toWire(alice.message(["bob"])))
        )
        yield* until(
          "bob to be unknown",
          Effect.map(refusedOf(services, "alice", "unknown_recipient"), (count) =>
            count === 1 ? count : undefined
          )
        )
        assert.isFalse(alice.closed)
        yield* Effect.promise(() => alice.leave())
      })
    )
  )

  it.live("connections that cannot prove whose they are, and second claimants of a name", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const fleet = newFleet()
        const services = yield* startServices(fleet, path, { keys })
        const { alice } = yield* cast(fleet, services)
        const attempt = (name: string, password: Uint8Array) =>
          Effect.promise(() =>
            mqtt
              .connectAsync(`mqtt://${services.address.host}`, {
                clientId: name,
                username: name,
                password: Buffer.from(password),
                reconnectPeriod: 0
              })
              .then(
                (client) => client.endAsync(true).then(() => "taken"),
                (error: { readonly code?: number }) => String(error.code)
              )
          )
        const impostor = Object.assign(Object.create(alice) as RogueAgent, {
          ring: ringOf("device", "impostor")
        })
        const session = () => newId() as never
        assert.strictEqual(yield* attempt("alice", impostor.proof({ session: session() })), "5")
        assert.strictEqual(yield* attempt("bob", alice.proof({ session: session() })), "5")
        // The very proof that alice came with.
        assert.strictEqual(yield* attempt("alice", alice.proof()), "5")
        const old = { session: session(), issued_at_ms: Date.now() - 3_600_000 }
        assert.strictEqual(yield* attempt("alice", alice.proof(old)), "5")
        const foreign = { session: session(), server: ringOf("server", "another").id as never }
        assert.strictEqual(yield* attempt("alice", alice.proof(foreign)), "5")
        assert.strictEqual(yield* attempt("alice", new TextEncoder().encode("guess")), "5")
        assert.strictEqual(yield* refusedOf(services, "alice", "bad_credentials"), 5)
        assert.strictEqual(yield* refusedOf(services, "bob", "bad_credentials"), 1)
        assert.isFalse(alice.closed)
      })
    )
  )

  it.live("what a flood brings, while another's message goes its way", () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const fleet = newFleet()
        const services = yield* startServices(fleet, path, { keys })
        const { alice, bob, mallory } = yield* cast(fleet, services)
        const flood = Array.from({ length: 500 }, () =>
          mallory.publish(brokerServices, "protected", new TextEncoder().encode("flood"))
        )
        yield* Effect.promise(() =>
          alice.publish(brokerServices, "private", toWire(toServices(alice, privateOf(alice))))
        )
        yield* until(
          "alice's message",
          Effect.sync(() => (inboxes(bob).length === 1 ? true : undefined))
        )
        yield* Effect.promise(() => Promise.all(flood))
        assert.strictEqual(yield* refusedOf(services, "mallory", "malformed"), 500)
        assert.isFalse(mallory.closed)
      })
    )
  )

  it("does not end with a connection that sends no MQTT", async () => {
    const fleet = newFleet()
    await Effect.runPromise(
      withFolder((path) =>
        Effect.gen(function* () {
          const services = yield* startServices(fleet, path, { keys })
          const { alice, bob } = yield* cast(fleet, services)
          yield* Effect.promise(async () => {
            for (const bytes of ["GET / HTTP/1.1\r\n\r\n", "\x10\x00", "\x30\xff\xff\xff\xff", "\x00"]) {
              const socket = connect(Number(services.address.port), services.address.hostname)
              const closed = new Promise((done) => socket.once("close", done))
              socket.on("error", () => undefined)
              socket.end(bytes, "latin1")
              await closed
            }
            await alice.publish(brokerServices, "protected", toWire(alice.message(["bob"])))
          })
          yield* until(
            "alice's message",
            Effect.sync(() => (inboxes(bob).length === 1 ? true : undefined))
          )
          assert.isFalse(bob.closed)
        })
      )
    )
  })
})

import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import fc from "fast-check"
import { NativeCrypto } from "../../src/adapters/NativeCrypto.ts"
import { encodeBase64 } from "../../src/crypto/Base64.ts"
import { canonicalBytes } from "../../src/crypto/CanonicalJson.ts"
import { partsOf, readDirectory, readHandshake } from "../../src/crypto/Handshakes.ts"
import { bodyFlaw, type Judged, sealMessage, toWire } from "../../src/crypto/Messages.ts"
import { type Receiver, receive } from "../../src/crypto/Reception.ts"
import { judgeArrival, makeOutgoing } from "../../src/crypto/Relay.ts"
import { type JsonSigner, signJson } from "../../src/crypto/SignedJson.ts"
import {
  type Directory,
  type DirectoryEntry,
  DocumentLimits,
  type Handshake
} from "../../src/schemas/Agents.ts"
import type { Name } from "../../src/schemas/Ids.ts"
import { type Delivery, type Message, MessageLimits, type Sealed } from "../../src/schemas/Message.ts"
import { type AgentName, brokerServices } from "../../src/schemas/Topics.ts"

const engine = NativeCrypto
const nowMs = 10_000_000
const times = { issued_at_ms: nowMs, expires_at_ms: nowMs + 60_000 }
const idOf = (letter: string) => letter.repeat(26) as Message["id"]

const party = (name: string, seed: number) => {
  const secret = new Uint8Array(32).fill(seed + 100)
  const pair = { secret, public: engine.x25519.publicKey(secret) }
  const signingSeed = new Uint8Array(32).fill(seed)
  const signingKey = encodeBase64(engine.ed25519.publicKey(signingSeed))
  const signer: JsonSigner = { seed: signingSeed, signingKey }
  const key = encodeBase64(pair.public)
  return { name: name as AgentName, signer, key, agreements: new Map([[key, pair]]) }
}
type Party = ReturnType<typeof party>
const services = party(brokerServices, 1)
const [alice, bob] = [party("alice", 2), party("bob", 3)]

const receiver: Receiver = {
  name: bob.name,
  agreements: bob.agreements,
  services: new Set([services.signer.signingKey]),
  keyOf: (agent) => (agent === "alice" ? alice.signer.signingKey : undefined)
}

const message = (by: Party, more: Partial<Message>): Message =>
  signJson<Message>(engine, by.signer, {
    type: "postern/message/v1",
    id: idOf("a"),
    level: "protected",
    from: by.name,
    to: [bob.name],
    ...times,
    subject: "",
    body: null,
    ...more
  })

const seal = (
  by: Party,
  to: Party,
  inside: Message,
  more: Partial<Sealed> & Pick<Sealed, "level">
): Sealed => {
  const { from, id } = inside
  const header = { id, from: more.from ?? from, to: to.name, ...times, ...more } as Sealed
  const { expires_at_ms, issued_at_ms, level } = header
  return Result.getOrThrow(
    sealMessage(
      engine,
      by.signer,
      { id: header.id, level, from: header.from, to: header.to, issued_at_ms, expires_at_ms },
      inside,
      to.key,
      new Uint8Array(32).fill(9)
    )
  )
}

const deliver = (content: Delivery["content"], to = bob.name): Uint8Array =>
  toWire(
    signJson<Delivery>(engine, services.signer, {
      type: "postern/delivery/v1",
      to,
      content,
      delivered_at_ms: nowMs
    })
  )

const judge = (inbox: "protected" | "private", wire: Uint8Array) =>
  judgeArrival(engine, services, {
    inbox,
    wire,
    from: alice.name,
    senderKey: alice.signer.signingKey,
    nowMs
  })
const take = (inbox: "protected" | "private", wire: Uint8Array, atMs = nowMs) =>
  receive(engine, receiver, inbox, wire, atMs)
const codeOf = (judged: Judged<unknown>): string => (Result.isFailure(judged) ? judged.failure.code : "taken")

const nested = (depth: number): Message["body"] =>
  Array.from({ length: depth }).reduce<Message["body"]>((inner) => [inner], 0)

describe("what broker services take fits into what they make of it", () => {
  it("up to the deepest and the largest body", () => {
    const text = "x".repeat(MessageLimits.bodyBytes - 2)
    for (const body of [nested(MessageLimits.bodyDepth), text]) {
      assert.isUndefined(bodyFlaw(body))
      const names = Array.from({ length: 99 }, (_, index) => `${"n".repeat(60)}${index}` as Name)
      const inside = message(alice, { body, to: [bob.name, ...names], subject: '"'.repeat(128) })
      const taken = Result.getOrThrow(judge("protected", toWire(inside)))
      const recipient = { name: bob.name, agreementKey: bob.key }
      const [out] = makeOutgoing(engine, services, taken, [recipient], nowMs, new Uint8Array(32).fill(1))
      assert.deepStrictEqual(Result.getOrThrow(take("protected", out?.wire as Uint8Array)).body, body)
    }
  })

  it("and refuse one that is deeper or larger, whichever way it comes", () => {
    const deep = nested(MessageLimits.bodyDepth + 1)
    const large = "x".repeat(MessageLimits.messageBytes)
    for (const [body, code] of [
      [deep, "malformed"],
      [large, "too_large"]
    ] as const) {
      assert.isDefined(bodyFlaw(body))
      assert.strictEqual(codeOf(judge("protected", toWire(message(alice, { body })))), code)
      const inside = message(alice, { body, level: "private" })
      assert.strictEqual(
        codeOf(judge("private", toWire(seal(alice, services, inside, { level: "private" })))),
        code
      )
      const own = message(alice, { body, level: "end_to_end" })
      const closed = deliver(seal(alice, bob, own, { level: "end_to_end" }))
      assert.strictEqual(codeOf(take("private", closed)), code)
    }
  })

  it("whatever JSON it is", () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 30 }), (value) => {
        if (bodyFlaw(value) !== undefined) return
        const taken = judge("protected", toWire(message(alice, { body: value as Message["body"] })))
        const recipient = { name: bob.name, agreementKey: bob.key }
        const [out] = makeOutgoing(
          engine,
          services,
          Result.getOrThrow(taken),
          [recipient],
          nowMs,
          new Uint8Array(32)
        )
        assert.strictEqual(codeOf(take("protected", out?.wire as Uint8Array)), "taken")
      })
    )
  })
})

describe("what is sealed", () => {
  const insides = { id: idOf("b"), issued_at_ms: nowMs - 1, expires_at_ms: nowMs + 60_001 }

  it("has one name and one time, inside and outside, for broker services and for agents", () => {
    for (const [member, value] of Object.entries(insides)) {
      const toServices = seal(alice, services, message(alice, { level: "private", [member]: value }), {
        id: idOf("a"),
        level: "private"
      })
      assert.strictEqual(codeOf(judge("private", toWire(toServices))), "malformed", member)
      const fromServices = seal(services, bob, message(alice, { level: "private", [member]: value }), {
        id: idOf("a"),
        from: brokerServices,
        level: "private"
      })
      assert.strictEqual(codeOf(take("private", toWire(fromServices))), "malformed", member)
      const endToEnd = seal(alice, bob, message(alice, { level: "end_to_end", [member]: value }), {
        id: idOf("a"),
        level: "end_to_end"
      })
      assert.strictEqual(codeOf(take("private", deliver(endToEnd))), "malformed", member)
    }
  })

  it("end to end is for one alone", () => {
    const inside = message(alice, { level: "end_to_end", to: [bob.name, "carol" as Name] })
    const wire = deliver(seal(alice, bob, inside, { level: "end_to_end" }))
    assert.strictEqual(codeOf(take("private", wire)), "wrong_recipient")
  })
})

describe("an agent", () => {
  it("takes a word of broker services' own by their key alone", () => {
    const own = message(services, { from: brokerServices })
    assert.strictEqual(codeOf(take("protected", deliver(own))), "taken")
    const borrowed = message(alice, { from: brokerServices })
    assert.strictEqual(codeOf(take("protected", deliver(borrowed))), "bad_signature")
  })

  it("forgives clocks that are off on both sides, and no more", () => {
    const wire = deliver(message(alice, {}))
    assert.strictEqual(codeOf(take("protected", wire, nowMs - MessageLimits.receivedFutureMs)), "taken")
    assert.strictEqual(
      codeOf(take("protected", wire, nowMs - MessageLimits.receivedFutureMs - 1)),
      "from_the_future"
    )
    assert.strictEqual(codeOf(take("protected", wire, times.expires_at_ms)), "expired")
  })
})

describe("the documents around messages", () => {
  const entry = (index: number, edges: number): DirectoryEntry => ({
    agent: `agent-${index}` as Name,
    device: `dev_${"a".repeat(52)}` as DirectoryEntry["device"],
    signing_key: alice.signer.signingKey as DirectoryEntry["signing_key"],
    agreement: { key: alice.key, version: 1 },
    status: "C",
    edge_devices: Array.from({ length: edges }, (_, edge) => `${edge}`.padEnd(64, "語"))
  })

  it("tell every agent in parts that can be read, however much each tells of itself", () => {
    fc.assert(
      fc.property(fc.array(fc.nat({ max: DocumentLimits.edgeDevices }), { maxLength: 400 }), (edges) => {
        const entries = edges.map((count, index) => entry(index, count))
        const parts = partsOf(entries)
        assert.deepStrictEqual(parts.flat(), entries)
        for (const [index, agents] of parts.entries()) {
          const document = signJson<Directory>(engine, services.signer, {
            type: "postern/directory/v1",
            version: 8_640_000_000_000_000,
            part: index + 1,
            parts: parts.length,
            agents: [...agents],
            issued_at_ms: 8_640_000_000_000_000,
            expires_at_ms: 8_640_000_000_000_000
          })
          assert.strictEqual(codeOf(readDirectory(engine, canonicalBytes(document))), "taken")
        }
      }),
      { numRuns: 20 }
    )
  })

  it("name no key that nothing can be sealed to", () => {
    const shake = (key: string) =>
      canonicalBytes(
        signJson<Handshake>(engine, alice.signer, {
          type: "postern/handshake/v1",
          agent: "alice" as Name,
          device: entry(0, 0).device,
          session: idOf("s") as unknown as Handshake["session"],
          nonce: idOf("n"),
          agreement: { key, version: 1 },
          visible: true,
          edge_devices: [],
          issued_at_ms: nowMs
        })
      )
    assert.strictEqual(codeOf(readHandshake(engine, shake(alice.key))), "taken")
    const weak = new Uint8Array(32)
    const unreduced = new Uint8Array(32).fill(255)
    for (const bytes of [weak, unreduced])
      assert.strictEqual(codeOf(readHandshake(engine, shake(encodeBase64(bytes)))), "malformed")
  })
})

import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import fc from "fast-check"
import { NativeCrypto } from "../../src/adapters/NativeCrypto.ts"
import { encodeBase64 } from "../../src/crypto/Base64.ts"
import { type Judged, sealMessage, toWire } from "../../src/crypto/Messages.ts"
import { NobleEngine } from "../../src/crypto/NobleEngine.ts"
import { type Receiver, receive } from "../../src/crypto/Reception.ts"
import { type Accepted, judgeArrival, makeOutgoing, type RelayKeys } from "../../src/crypto/Relay.ts"
import { type JsonSigner, signJson } from "../../src/crypto/SignedJson.ts"
import type { Name } from "../../src/schemas/Ids.ts"
import type { Message, SecureLevel } from "../../src/schemas/Message.ts"
import { type AgentName, brokerServices } from "../../src/schemas/Topics.ts"
import { flipBit } from "./vectors.ts"

const engine = NativeCrypto
const name = (text: string) => text as Name
const nowMs = 1_000_000
const times = { issued_at_ms: nowMs, expires_at_ms: nowMs + 60_000 }

/** Somebody with keys that follow from a number. */
const party = (who: string, seed: number) => {
  const secret = new Uint8Array(32).fill(seed + 100)
  const pair = { secret, public: engine.x25519.publicKey(secret) }
  const signingSeed = new Uint8Array(32).fill(seed)
  const signer: JsonSigner = {
    seed: signingSeed,
    signingKey: encodeBase64(engine.ed25519.publicKey(signingSeed))
  }
  const key = encodeBase64(pair.public)
  return { name: who as AgentName, signer, key, agreements: new Map([[key, pair]]) }
}
type Party = ReturnType<typeof party>

const services = party(brokerServices, 1)
const [alice, bob, carol, mallory] = [
  party("alice", 2),
  party("bob", 3),
  party("carol", 4),
  party("mallory", 5)
]
const relayKeys: RelayKeys = services

const receiverOf = (who: Party): Receiver => ({
  name: who.name,
  agreements: who.agreements,
  services: new Set([services.signer.signingKey]),
  keyOf: (agent) => (agent === "alice" ? alice.signer.signingKey : undefined)
})

const idOf = (seed: number) => String.fromCharCode(97 + (seed % 26)).repeat(26) as Message["id"]

interface Sent {
  readonly level: SecureLevel
  readonly body: Message["body"]
  readonly to: ReadonlyArray<Party>
  readonly by?: Party
  readonly as?: Party
}

/** What a sender publishes, and to which inbox. */
const send = ({
  as,
  body,
  by = alice,
  level,
  to
}: Sent): { inbox: "protected" | "private"; wire: Uint8Array } => {
  const from = (as ?? by).name
  const message = signJson<Message>(engine, by.signer, {
    type: "postern/message/v1",
    id: idOf(1),
    level,
    from,
    to: to.map((each) => each.name),
    ...times,
    subject: "",
    body
  })
  if (level === "protected") return { inbox: "protected", wire: toWire(message) }
  const target = level === "private" ? services : (to[0] as Party)
  const header = { id: idOf(1), level, from, to: target.name, ...times }
  const sealed = sealMessage(engine, by.signer, header, message, target.key, new Uint8Array(32).fill(77))
  return { inbox: "private", wire: toWire(Result.getOrThrow(sealed)) }
}

const judge = (wire: Uint8Array, inbox: "protected" | "private", from = alice, now = nowMs) =>
  judgeArrival(engine, relayKeys, {
    inbox,
    wire,
    from: from.name,
    senderKey: from.signer.signingKey,
    nowMs: now
  })

const outgoing = (accepted: Accepted, to: ReadonlyArray<Party>, entropy = 9) =>
  makeOutgoing(
    engine,
    relayKeys,
    accepted,
    to.map((each) => ({ name: each.name, agreementKey: each.key })),
    nowMs,
    new Uint8Array(32 * to.length).fill(entropy)
  )

const codeOf = (judged: Judged<unknown>): string => (Result.isFailure(judged) ? judged.failure.code : "taken")
const levels: ReadonlyArray<SecureLevel> = ["protected", "private", "end_to_end"]

describe("broker services and their agents", () => {
  for (const level of levels) {
    const to = level === "end_to_end" ? [bob] : [bob, carol]

    it(`carry a ${level} message to each of its recipients, with its sender's own word`, () => {
      const { inbox, wire } = send({ level, body: { reading: 21.5 }, to })
      const sent = outgoing(Result.getOrThrow(judge(wire, inbox)), to)
      assert.lengthOf(sent, to.length)
      for (const [index, each] of to.entries()) {
        const one = sent[index] as (typeof sent)[0]
        const got = Result.getOrThrow(receive(engine, receiverOf(each), one.inbox, one.wire, nowMs))
        assert.deepStrictEqual(got.body, { reading: 21.5 })
        assert.strictEqual(got.from, "alice")
        assert.strictEqual(got.signing_key, alice.signer.signingKey)
        assert.strictEqual(got.level, level)
      }
    })

    it(`refuse a ${level} message of which any bit was turned, on either half of its way`, () => {
      const { inbox, wire } = send({ level, body: "21.5", to })
      const [first] = outgoing(Result.getOrThrow(judge(wire, inbox)), to)
      const out = first as NonNullable<typeof first>
      fc.assert(
        fc.property(
          fc.nat({ max: wire.length * 8 - 1 }),
          fc.nat({ max: out.wire.length * 8 - 1 }),
          (one, two) => {
            assert.notStrictEqual(codeOf(judge(flipBit(wire, one), inbox)), "taken")
            const bent = receive(engine, receiverOf(bob), out.inbox, flipBit(out.wire, two), nowMs)
            assert.notStrictEqual(codeOf(bent), "taken")
          }
        ),
        { numRuns: 200 }
      )
    })

    it(`refuse a ${level} message that is not its sender's`, () => {
      const forged = send({ level, body: 1, to, by: mallory, as: alice })
      assert.strictEqual(codeOf(judge(forged.wire, forged.inbox)), "bad_signature")
      const own = send({ level, body: 1, to, by: mallory })
      assert.strictEqual(codeOf(judge(own.wire, own.inbox)), "wrong_sender")
    })

    it(`refuse a ${level} message in another inbox, too late, too early`, () => {
      const { inbox, wire } = send({ level, body: 1, to })
      const other = inbox === "private" ? "protected" : "private"
      assert.strictEqual(codeOf(judge(wire, other)), "malformed")
      assert.strictEqual(codeOf(judge(wire, inbox, alice, nowMs + 60_000)), "expired")
      assert.strictEqual(codeOf(judge(wire, inbox, alice, nowMs - 60_001)), "from_the_future")
    })

    it(`deliver a ${level} message to nobody else, nor to another inbox`, () => {
      const { inbox, wire } = send({ level, body: 1, to })
      const [first] = outgoing(Result.getOrThrow(judge(wire, inbox)), to)
      const out = first as NonNullable<typeof first>
      const other = out.inbox === "private" ? "protected" : "private"
      assert.notStrictEqual(codeOf(receive(engine, receiverOf(mallory), out.inbox, out.wire, nowMs)), "taken")
      assert.notStrictEqual(codeOf(receive(engine, receiverOf(bob), other, out.wire, nowMs)), "taken")
      assert.strictEqual(
        codeOf(receive(engine, receiverOf(bob), out.inbox, out.wire, nowMs + 60_000)),
        "expired"
      )
    })
  }

  it("take nothing from who only says to be broker services", () => {
    const { inbox, wire } = send({ level: "private", body: 1, to: [bob] })
    const accepted = Result.getOrThrow(judge(wire, inbox))
    const recipients = [{ name: bob.name, agreementKey: bob.key }]
    for (const level of ["private", "protected"] as const) {
      const source =
        level === "private"
          ? accepted
          : Result.getOrThrow(judge(send({ level, body: 1, to: [bob] }).wire, level))
      const [out] = makeOutgoing(engine, mallory, source, recipients, nowMs, new Uint8Array(32).fill(3))
      const given = out as NonNullable<typeof out>
      assert.strictEqual(
        codeOf(receive(engine, receiverOf(bob), given.inbox, given.wire, nowMs)),
        "bad_signature"
      )
    }
  })

  it("cannot be made to take a private message's level down, or an end-to-end one's apart", () => {
    const inner = signJson<Message>(engine, alice.signer, {
      type: "postern/message/v1",
      id: idOf(1),
      level: "protected",
      from: name("alice"),
      to: [name("bob")],
      ...times,
      subject: "",
      body: 1
    })
    const header = {
      id: idOf(1),
      level: "private" as const,
      from: name("alice"),
      to: brokerServices,
      ...times
    } as const
    const wrapped = sealMessage(engine, alice.signer, header, inner, services.key, new Uint8Array(32).fill(7))
    assert.strictEqual(codeOf(judge(toWire(Result.getOrThrow(wrapped)), "private")), "wrong_level")

    // Mallory puts a message of alice's into a box of her own.
    const box = sealMessage(
      engine,
      mallory.signer,
      { id: idOf(1), level: "end_to_end", from: mallory.name, to: bob.name, ...times },
      { ...inner, level: "end_to_end" },
      bob.key,
      new Uint8Array(32).fill(8)
    )
    const accepted = Result.getOrThrow(judge(toWire(Result.getOrThrow(box)), "private", mallory))
    const [out] = outgoing(accepted, [bob])
    const given = out as NonNullable<typeof out>
    assert.strictEqual(
      codeOf(receive(engine, receiverOf(bob), given.inbox, given.wire, nowMs)),
      "wrong_sender"
    )
  })

  it("give the same bytes and verdicts on both engines", () => {
    for (const level of levels) {
      const { inbox, wire } = send({ level, body: [1, "two", null], to: [bob] })
      const arrival = { inbox, wire, from: alice.name, senderKey: alice.signer.signingKey, nowMs }
      const results = [NativeCrypto, NobleEngine].map((each) => {
        const accepted = Result.getOrThrow(judgeArrival(each, relayKeys, arrival))
        const to = [{ name: bob.name, agreementKey: bob.key }]
        return makeOutgoing(each, relayKeys, accepted, to, nowMs, new Uint8Array(32).fill(4))
      })
      assert.deepStrictEqual(results[0], results[1])
    }
  })

  it("throw at nothing", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 300 }),
        fc.constantFrom("protected", "private"),
        (bytes, inbox) => {
          assert.notStrictEqual(codeOf(judge(bytes, inbox)), "taken")
          assert.notStrictEqual(codeOf(receive(engine, receiverOf(bob), inbox, bytes, nowMs)), "taken")
        }
      )
    )
  })
})

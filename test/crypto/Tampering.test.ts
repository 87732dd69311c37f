/** Every document of messaging, bent at every byte, cut, lengthened and spliced: refused, and nothing throws. */
import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import fc from "fast-check"
import { NativeCrypto } from "../../src/adapters/NativeCrypto.ts"
import { encodeBase64 } from "../../src/crypto/Base64.ts"
import {
  readConnectProof,
  readDirectory,
  readHandshake,
  readHandshakeAnswer,
  readPing,
  readStatus
} from "../../src/crypto/Handshakes.ts"
import {
  bodyFlaw,
  readDelivery,
  readMessage,
  readSealed,
  sealMessage,
  toWire
} from "../../src/crypto/Messages.ts"
import { type Receiver, receive } from "../../src/crypto/Reception.ts"
import { judgeArrival, makeOutgoing } from "../../src/crypto/Relay.ts"
import { type JsonSigner, type SignedJson, signJson } from "../../src/crypto/SignedJson.ts"
import type { Message, MessageId, SecureLevel } from "../../src/schemas/Message.ts"
import { type AgentName, brokerServices } from "../../src/schemas/Topics.ts"
import { scaled } from "../support/proof.ts"

const engine = NativeCrypto
const nowMs = 1_000_000
const times = { issued_at_ms: nowMs, expires_at_ms: nowMs + 60_000 }
const id = "abcdefghijklmnopqrstuvwxyz" as MessageId

const party = (name: string, seed: number) => {
  const signingSeed = new Uint8Array(32).fill(seed)
  const secret = new Uint8Array(32).fill(seed + 100)
  const pair = { secret, public: engine.x25519.publicKey(secret) }
  const key = encodeBase64(pair.public)
  const signer: JsonSigner = {
    seed: signingSeed,
    signingKey: encodeBase64(engine.ed25519.publicKey(signingSeed))
  }
  return { name: name as AgentName, signer, key, agreements: new Map([[key, pair]]) }
}
const [services, alice, bob] = [party(brokerServices, 1), party("alice", 2), party("bob", 3)]

const judgeAt = (inbox: "protected" | "private") => (wire: Uint8Array) =>
  judgeArrival(engine, services, {
    inbox,
    wire,
    from: alice.name,
    senderKey: alice.signer.signingKey,
    nowMs
  })
const receiver: Receiver = {
  name: bob.name,
  agreements: bob.agreements,
  services: new Set([services.signer.signingKey]),
  keyOf: () => alice.signer.signingKey
}
const takeAt = (inbox: "protected" | "private") => (wire: Uint8Array) =>
  receive(engine, receiver, inbox, wire, nowMs)
const judge = { protected: judgeAt("protected"), private: judgeAt("private") }
const take = { protected: takeAt("protected"), private: takeAt("private") }

/** What a sender publishes at a level, and what its recipient is given. */
const halves = (level: SecureLevel, body: Message["body"]) => {
  const message = signJson<Message>(engine, alice.signer, {
    type: "postern/message/v1",
    id,
    level,
    from: alice.name,
    to: [bob.name],
    ...times,
    subject: "of interest",
    body
  })
  const inbox = level === "protected" ? ("protected" as const) : ("private" as const)
  const target = level === "private" ? services : bob
  const header = { id, level: level as "private", from: alice.name, to: target.name, ...times }
  const box = sealMessage(engine, alice.signer, header, message, target.key, new Uint8Array(32).fill(9))
  const sent = toWire(level === "protected" ? message : Result.getOrThrow(box))
  const accepted = Result.getOrThrow(judge[inbox](sent))
  const recipients = [{ name: bob.name, agreementKey: bob.key }]
  const [given] = makeOutgoing(engine, services, accepted, recipients, nowMs, new Uint8Array(32).fill(8))
  return { inbox, sent, given: given as NonNullable<typeof given> }
}

type Reader = (wire: Uint8Array) => Result.Result<unknown, unknown>
interface Envelope {
  readonly what: string
  readonly wire: Uint8Array
  readonly read: Reader
}

const signed =
  (what: string, read: (engine_: typeof engine, wire: Uint8Array) => ReturnType<Reader>) =>
  (by: JsonSigner, document: Record<string, unknown>): Envelope => ({
    what,
    wire: toWire(signJson<SignedJson>(engine, by, document as never)),
    // Whose key it is, is judged by others; here it is the one that was meant.
    read: (wire) => {
      const result = read(engine, wire)
      if (Result.isFailure(result)) return result
      return (result.success as SignedJson).signing_key === by.signingKey
        ? result
        : Result.fail("another key")
    }
  })

const device = `dev_${"a".repeat(52)}`
const agreement = { key: bob.key, version: 1 }
const common = { issued_at_ms: nowMs }
const session = id

const envelopes: ReadonlyArray<Envelope> = [
  ...(["protected", "private", "end_to_end"] as const).flatMap((level): ReadonlyArray<Envelope> => {
    const { given, inbox, sent } = halves(level, { reading: 21.5, unit: "°C" })
    return [
      { what: `what is ${level}, for broker services,`, wire: sent, read: judge[inbox] },
      { what: `what is ${level}, for its recipient,`, wire: given.wire, read: take[given.inbox] }
    ]
  }),
  signed("a proof of a connection", readConnectProof)(alice.signer, {
    type: "postern/mqtt-connect/v1",
    agent: alice.name,
    device,
    server: `srv_${"a".repeat(52)}`,
    session,
    ...common
  }),
  signed("a handshake", readHandshake)(alice.signer, {
    type: "postern/handshake/v1",
    agent: alice.name,
    device,
    session,
    nonce: id,
    agreement,
    visible: true,
    edge_devices: ["thermometer"],
    ...common
  }),
  signed("the answer to a handshake", readHandshakeAnswer)(services.signer, {
    type: "postern/handshake-answer/v1",
    agent: alice.name,
    session,
    nonce: id,
    verdict: "known",
    detail: "",
    agreement,
    ...common
  }),
  signed("a status", readStatus)(alice.signer, {
    type: "postern/status/v1",
    agent: alice.name,
    session,
    status: "DU",
    ...common
  }),
  signed("a ping", readPing)(alice.signer, {
    type: "postern/ping/v1",
    from: alice.name,
    to: bob.name,
    nonce: id,
    ...common
  }),
  signed("the list of agents", readDirectory)(services.signer, {
    type: "postern/directory/v1",
    version: 1,
    part: 1,
    parts: 1,
    agents: [
      {
        agent: bob.name,
        device,
        signing_key: bob.signer.signingKey,
        agreement,
        status: "C",
        edge_devices: []
      }
    ],
    expires_at_ms: nowMs + 1,
    ...common
  })
]

const isRefused = (read: Reader, wire: Uint8Array) => Result.isFailure(read(wire))

describe("envelopes", () => {
  for (const { read, what, wire } of envelopes) {
    it(`${what} is taken as it is, and refused bent at any byte`, () => {
      assert.isTrue(Result.isSuccess(read(wire)))
      for (let at = 0; at < wire.length; at++) {
        const bent = wire.slice()
        bent[at] = (bent[at] as number) ^ (1 << (at % 8))
        assert.isTrue(isRefused(read, bent), `byte ${at}`)
      }
    })

    it(`${what} is refused with other bytes anywhere, cut or lengthened`, () => {
      const other = fc.record({
        at: fc.nat({ max: wire.length }),
        removed: fc.nat({ max: 8 }),
        put: fc.oneof(
          fc.uint8Array({ maxLength: 8 }),
          fc.constantFrom(" ", ",", "0", "\n", "\u0000").map((text) => new TextEncoder().encode(text))
        )
      })
      fc.assert(
        fc.property(other, ({ at, put, removed }) => {
          const bent = new Uint8Array([...wire.subarray(0, at), ...put, ...wire.subarray(at + removed)])
          fc.pre(Buffer.compare(bent, wire) !== 0)
          assert.isTrue(isRefused(read, bent))
        }),
        { numRuns: scaled(50) }
      )
    })
  }

  it("are never taken for one another", () => {
    for (const one of envelopes)
      for (const other of envelopes)
        if (one.read !== other.read)
          assert.isTrue(isRefused(one.read, other.wire), `${other.what} as ${one.what}`)
  })

  it("make no reader throw, whatever the bytes", () => {
    const readers: ReadonlyArray<Reader> = [
      ...envelopes.map(({ read }) => read),
      readMessage,
      readSealed,
      readDelivery
    ]
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 400 }),
      fc.json({ maxDepth: 30 }).map((text) => new TextEncoder().encode(text)),
      fc
        .tuple(fc.constantFrom(..."[{"), fc.nat({ max: 5_000 }))
        .map(([bracket, depth]) => new TextEncoder().encode(bracket.repeat(depth)))
    )
    fc.assert(
      fc.property(bytes, (wire) => {
        for (const read of readers) assert.isTrue(isRefused(read, wire))
      }),
      { numRuns: scaled(200) }
    )
  })
})

describe("any JSON value", () => {
  for (const level of ["protected", "private", "end_to_end"] as const) {
    it(`survives the whole way at the level ${level}`, () => {
      const value = fc
        .jsonValue({ maxDepth: 6 })
        .map((json) => JSON.parse(JSON.stringify(json)) as Message["body"])
        // Whole numbers beyond 2^53 - 1 are no interoperable JSON (RFC 7493): the sender is told so.
        .filter((json) => bodyFlaw(json) === undefined)
      fc.assert(
        fc.property(value, (body) => {
          const { given } = halves(level, body)
          const got = Result.getOrThrow(take[given.inbox](given.wire)) as Message
          assert.deepStrictEqual(got.body, body)
        }),
        { numRuns: scaled(50) }
      )
    })
  }
})

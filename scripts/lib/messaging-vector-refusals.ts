// Vectors of what is refused: each differs from what is taken in one thing.

import { MessageLimits } from "../../src/schemas/Message.ts"
import { brokerServices } from "../../src/schemas/Topics.ts"
import { deliver, type Judged, messageOf, nowMs, seal, text, type Workshop } from "./messaging-vectors.ts"

type Case = readonly [name: string, verdict: string, wire: Judged["wire"], more?: Partial<Judged>]

const nested = (depth: number): unknown =>
  Array.from({ length: depth }).reduce<unknown>((inner) => [inner], 0)

/** A protected message as it comes to broker services. */
const protectedOnes = (shop: Workshop): ReadonlyArray<Case> => {
  const { sign } = shop
  const of = (more: object) => sign("alice", { ...messageOf(shop, {}), ...more })
  const good = of({})
  const long = of({ body: "x" })
  const [head, tail] = long.split('"x"') as [string, string]
  const { lifetimeMs } = MessageLimits
  return [
    [
      "a message that is too large",
      "too_large",
      [
        [`${head}"`, 1],
        ["x", MessageLimits.messageBytes],
        [`"${tail}`, 1]
      ]
    ],
    ["no JSON", "malformed", good.slice(0, -1)],
    ["a blank between members", "malformed", good.replace(',"expires', ', "expires')],
    [
      "members in another order",
      "malformed",
      JSON.stringify(JSON.parse(good), Object.keys(JSON.parse(good)).reverse())
    ],
    ["the same member twice", "malformed", good.replace('{"body"', '{"body":null,"body"')],
    ["a number in another form", "malformed", good.replace("21.5", "21.50")],
    ["a whole number beyond 2^53 - 1", "malformed", good.replace("21.5", "9007199254740992")],
    ["half a surrogate pair", "malformed", good.replace('"roof"', '"\\ud800"')],
    ["a member nobody knows", "malformed", of({ more: 1 })],
    ["a member missing", "malformed", good.replace('"subject":"readings",', "")],
    ["a body nested too deeply", "malformed", of({ body: nested(MessageLimits.bodyDepth + 1) })],
    ["an id of another form", "malformed", of({ id: "A".repeat(26) })],
    ["the same recipient twice", "malformed", of({ to: ["bob", "bob"] })],
    ["no recipient", "malformed", of({ to: [] })],
    ["a control character in the subject", "malformed", of({ subject: "a\nb" })],
    ["another type", "malformed", of({ type: "postern/public/v1" })],
    ["a signature of another message", "bad_signature", good.replace("21.5", "22.5")],
    ["signed anew by another", "bad_signature", sign("mallory", messageOf(shop, {}))],
    ["another agent's message", "wrong_sender", good, { from: "mallory" }],
    ["another level", "wrong_level", of({ level: "private" })],
    ["one that has expired", "expired", of({ issued_at_ms: nowMs - 9_000, expires_at_ms: nowMs })],
    ["one from the future", "from_the_future", of({ issued_at_ms: nowMs + MessageLimits.futureMs + 1 })],
    ["one that lives too long", "lives_too_long", of({ expires_at_ms: nowMs - 5_000 + lifetimeMs + 1 })]
  ]
}

/** Something sealed as it comes to broker services. */
const sealedOnes = (shop: Workshop): ReadonlyArray<Case> => {
  const inside = (more: object = {}, by = "alice") =>
    shop.sign(by, { ...messageOf(shop, { level: "private" }), ...more })
  const to = (wire: string, header = {}, by = "alice", recipient: string = brokerServices) =>
    seal(shop, by, wire, recipient, header).wire
  const good = to(inside())
  const stolen = () => {
    const { signature: _, signing_key: _key, ...rest } = JSON.parse(good)
    return shop.sign("mallory", { ...rest, from: "mallory" })
  }
  const bent = (bend: (document: Record<string, string>) => object) => {
    const { signature: _, signing_key: _key, ...rest } = JSON.parse(good)
    return shop.sign("alice", { ...rest, ...bend(rest) })
  }
  const turned = (box: string) => (box.startsWith("A") ? `B${box.slice(1)}` : `A${box.slice(1)}`)
  return [
    [
      "the outside changed",
      "bad_signature",
      good.replace('"private"', '"end_to_end"').replace(`"to":"${brokerServices}"`, '"to":"bob"')
    ],
    ["taken from another and signed anew", "not_opened", stolen(), { from: "mallory" }],
    ["another agent's box", "wrong_sender", good, { from: "mallory" }],
    ["a private one that is sealed to an agent", "wrong_recipient", to(inside(), {}, "alice", "bob")],
    [
      "an end-to-end one to broker services",
      "wrong_recipient",
      to(inside({ level: "end_to_end" }), { level: "end_to_end" })
    ],
    [
      "sealed to a key that is not held",
      "not_for_this_key",
      bent(() => ({ recipient_key: shop.party("bob").agreementKey }))
    ],
    [
      "another ciphertext",
      "not_opened",
      bent(({ ciphertext }) => ({ ciphertext: turned(ciphertext as string) }))
    ],
    ["another end, signed", "not_opened", bent(() => ({ expires_at_ms: nowMs + 1 }))],
    ["an encapsulated key of small order", "not_opened", bent(() => ({ enc: `${"A".repeat(43)}=` }))],
    ["base64 that nobody would write", "malformed", bent(() => ({ ciphertext: "AB==" }))],
    ["one that has expired", "expired", to(inside({ expires_at_ms: nowMs }))],
    [
      "an inside of another sender",
      "wrong_sender",
      to(inside({ from: "mallory" }, "mallory"), { from: "alice" })
    ],
    ["an inside signed by another", "bad_signature", to(inside({}, "mallory"))],
    ["an inside of another level", "wrong_level", to(inside({ level: "protected" }))],
    ["an inside with another id", "malformed", to(inside(), { id: shop.id("another") as never })],
    ["an inside with another end", "malformed", to(inside(), { expires_at_ms: nowMs + 1 })],
    ["an inside that is no message", "malformed", to(text({ ...JSON.parse(inside()), subject: 5 }))]
  ]
}

/** What comes into an agent's inboxes: bob's, where nothing else is said. */
const received = (shop: Workshop): ReadonlyArray<Case> => {
  const open = (more: object = {}, by = "alice") => shop.sign(by, { ...messageOf(shop, {}), ...more })
  const closed = (more: object = {}, header = {}, by = "alice") =>
    seal(shop, by, open({ level: "end_to_end", ...more }, by), "bob", { level: "end_to_end", ...header }).wire
  const fromServices = (more: object = {}, header = {}, by: string = brokerServices) =>
    seal(shop, by, open({ level: "private", ...more }), "bob", { from: brokerServices, ...header }).wire
  const inPrivate = { inbox: "private" } as const
  const toBob = (content: string) => deliver(shop, content)
  return [
    ["a delivery by another", "bad_signature", deliver(shop, open(), "bob", "mallory")],
    ["a message without a delivery", "malformed", open()],
    ["carol's delivery", "wrong_inbox", deliver(shop, open(), "carol")],
    ["a message for others", "wrong_recipient", toBob(open({ to: ["carol"] }))],
    ["a message signed by another", "bad_signature", toBob(open({}, "mallory"))],
    ["a word of broker services with another's key", "bad_signature", toBob(open({ from: brokerServices }))],
    ["a private message in the clear", "wrong_level", toBob(open({ level: "private" }))],
    ["a message in the clear in the private inbox", "wrong_inbox", toBob(open()), inPrivate],
    ["a message that has expired", "expired", toBob(open()), { now_ms: nowMs + 3_600_000 }],
    [
      "a message from the future",
      "from_the_future",
      toBob(open()),
      { now_ms: nowMs - 5_001 - MessageLimits.receivedFutureMs }
    ],
    ["what is sealed in the protected inbox", "wrong_inbox", toBob(closed())],
    [
      "a box for another",
      "wrong_inbox",
      toBob(
        seal(shop, "alice", open({ level: "end_to_end", to: ["carol"] }), "carol", { level: "end_to_end" })
          .wire
      ),
      inPrivate
    ],
    ["a private box within a delivery", "wrong_inbox", toBob(fromServices()), inPrivate],
    ["an end-to-end message to two", "wrong_recipient", toBob(closed({ to: ["bob", "carol"] })), inPrivate],
    [
      "an end-to-end message with an inside of another",
      "wrong_sender",
      toBob(closed({ from: "carol" }, { from: "alice" })),
      inPrivate
    ],
    [
      "an end-to-end message with another end inside",
      "malformed",
      toBob(closed({}, { expires_at_ms: nowMs + 1 })),
      inPrivate
    ],
    [
      "a private message by an agent",
      "wrong_recipient",
      fromServices({}, { from: "alice" }, "alice"),
      inPrivate
    ],
    ["a private message signed by another", "bad_signature", fromServices({}, {}, "mallory"), inPrivate],
    ["a private message for carol", "wrong_recipient", fromServices({}, { to: "carol" }), inPrivate],
    [
      "a private message with another id inside",
      "malformed",
      fromServices({}, { id: shop.id("another") as never }),
      inPrivate
    ]
  ]
}

/** Documents beside messages. */
const documents = (shop: Workshop): ReadonlyArray<Case> => {
  const alice = shop.party("alice")
  const shake = {
    type: "postern/handshake/v1",
    agent: "alice",
    device: alice.id,
    session: shop.id("a session"),
    nonce: shop.id("a nonce"),
    agreement: { key: alice.agreementKey, version: 1 },
    visible: true,
    edge_devices: [],
    issued_at_ms: nowMs
  }
  const weak = { key: `${"A".repeat(43)}=`, version: 1 }
  const good = shop.sign("alice", shake)
  const kind = { kind: "handshake" } as const
  return [
    [
      "a handshake whose signature is of another",
      "bad_signature",
      good.replace('"visible":true', '"visible":false'),
      kind
    ],
    [
      "a handshake with a key of small order",
      "malformed",
      shop.sign("alice", { ...shake, agreement: weak }),
      kind
    ],
    ["a handshake as a ping", "malformed", good, { kind: "ping" }],
    [
      "a handshake of broker services",
      "malformed",
      shop.sign("alice", { ...shake, agent: brokerServices }),
      kind
    ],
    [
      "a version that is none",
      "malformed",
      shop.sign("alice", { ...shake, agreement: { ...shake.agreement, version: 0 } }),
      kind
    ]
  ]
}

export const refusals = (shop: Workshop): ReadonlyArray<Judged> => {
  const cases = (by: Judged["by"], common: Partial<Judged>, list: ReadonlyArray<Case>) =>
    list.map(([name, verdict, wire, more]): Judged => ({ name, by, ...common, ...more, wire, verdict }))
  const arrived = { from: "alice", now_ms: nowMs }
  return [
    ...cases("broker_services", { inbox: "protected", ...arrived }, protectedOnes(shop)),
    ...cases("broker_services", { inbox: "private", ...arrived }, sealedOnes(shop)),
    ...cases("agent", { agent: "bob", inbox: "protected", now_ms: nowMs }, received(shop)),
    ...cases("reader", {}, documents(shop))
  ]
}

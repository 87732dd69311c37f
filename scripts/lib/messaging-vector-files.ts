// The files of test/vectors: what stands in each.

import type { Engine } from "../../src/crypto/Engine.ts"
import { MessageLimits } from "../../src/schemas/Message.ts"
import { brokerServices } from "../../src/schemas/Topics.ts"
import { refusals } from "./messaging-vector-refusals.ts"
import {
  deliver,
  type Judged,
  type Made,
  makeWorkshop,
  messageOf,
  nowMs,
  seal,
  type Workshop
} from "./messaging-vectors.ts"

/** A file of vectors. */
export interface VectorFile {
  readonly about: string
  readonly keys: Workshop["keys"]
  readonly now_ms: number
  /** Documents to make: the same bytes must come out. */
  readonly made?: ReadonlyArray<Made>
  /** Documents to seal, with everything on the way. */
  readonly sealed?: ReadonlyArray<unknown>
  /** Documents to judge. */
  readonly judged?: ReadonlyArray<Judged>
}

const file = (
  shop: Workshop,
  about: string,
  parts: Omit<VectorFile, "about" | "keys" | "now_ms">
): VectorFile => ({
  about,
  keys: shop.keys,
  now_ms: nowMs,
  ...parts
})

/** Made documents, and each judged by whoever reads it. */
const read = (made: ReadonlyArray<Made>, kind: NonNullable<Judged["kind"]>): ReadonlyArray<Judged> =>
  made.map(({ name, wire }) => ({ name, by: "reader", kind, wire, verdict: "taken" }))

/** Names that sort differently by code units and by code points, characters that are escaped, numbers at their edges. */
const everyKind = String.raw`{
  "": null, "\u20ac": "\u20ac\u0000\u001f\n\"\\/\u2028", "\ud83d\ude00": [true, false, [], {}],
  "\ufb00": [0, -1.5, 1e-7, 0.000001, 123456789012.5, 5e-324, 9007199254740991, -9007199254740991],
  "__proto__": "a member like any other"
}`

const handshake = (shop: Workshop): VectorFile => {
  const [alice, services] = [shop.party("alice"), shop.party(brokerServices)]
  const names = { agent: "alice", device: alice.id, session: shop.id("a session") }
  const made = (name: string, signer: string, document: object) => shop.made(name, signer, document)
  const nonce = shop.id("a nonce")
  const connect = made("alice's password for one connection", "alice", {
    type: "postern/mqtt-connect/v1",
    ...names,
    server: shop.serverId,
    issued_at_ms: nowMs
  })
  const shake = made("alice's keys", "alice", {
    type: "postern/handshake/v1",
    ...names,
    nonce,
    agreement: { key: alice.agreementKey, version: 1 },
    visible: true,
    edge_devices: ["arduino-1", "Wetterhäuschen"],
    issued_at_ms: nowMs
  })
  const answer = (verdict: string, detail: string) =>
    made(`the answer to it: ${verdict}`, brokerServices, {
      type: "postern/handshake-answer/v1",
      agent: "alice",
      session: names.session,
      nonce,
      verdict,
      detail,
      agreement: { key: services.agreementKey, version: 3 },
      issued_at_ms: nowMs + 40
    })
  const answers = [
    answer("known", ""),
    answer("waiting", "no operator has accepted this device yet"),
    answer("refused", "the name is another device's")
  ]
  return file(shop, "How an agent comes: its password, its keys, the answers of broker services.", {
    made: [connect, shake, ...answers],
    judged: [...read([connect], "connect"), ...read([shake], "handshake"), ...read(answers, "answer")]
  })
}

const protectedMessages = (shop: Workshop): VectorFile => {
  const document = messageOf(shop, { to: ["bob", "carol"] as never })
  const made = shop.made("alice's message to bob and carol", "alice", document)
  const delivery = shop.made("its delivery to bob", brokerServices, {
    type: "postern/delivery/v1",
    to: "bob",
    content: JSON.parse(made.wire),
    delivered_at_ms: nowMs
  })
  const all = messageOf(shop, {
    id: shop.id("another message") as never,
    body: JSON.parse(everyKind) as never
  })
  const made2 = shop.made("a message with every kind of JSON in it", "alice", all)
  const inbox = "protected" as const
  return file(shop, "Protected messages: signed by their sender, delivered with broker services' word.", {
    made: [made, delivery, made2],
    judged: [
      { name: "to broker services", by: "broker_services", inbox, from: "alice", wire: made.wire },
      { name: "every kind of JSON", by: "broker_services", inbox, from: "alice", wire: made2.wire },
      { name: "to bob", by: "agent", agent: "bob", inbox, wire: delivery.wire, message: document },
      { name: "JSON to bob", by: "agent", agent: "bob", inbox, wire: deliver(shop, made2.wire), message: all }
    ].map((each) => ({ ...each, now_ms: nowMs, verdict: "taken" }) as Judged)
  })
}

const privateMessages = (shop: Workshop): VectorFile => {
  const document = messageOf(shop, { level: "private", to: ["bob", "carol"] as never })
  const inside = shop.made("alice's message", "alice", document)
  const toServices = seal(shop, "alice", inside.wire, brokerServices, {})
  const toEach = ["bob", "carol"].map((to) => seal(shop, brokerServices, inside.wire, to, {}))
  const inbox = "private" as const
  const judged = [
    { name: "to broker services", by: "broker_services", inbox, from: "alice", wire: toServices.wire },
    ...toEach.map(({ wire }, index) => {
      const agent = index === 0 ? "bob" : "carol"
      return { name: `to ${agent}`, by: "agent", agent, inbox, wire, message: document }
    })
  ]
  return file(shop, "Private messages: sealed to broker services, and by them to each recipient.", {
    made: [inside],
    sealed: [
      toServices.vector("alice to broker services"),
      ...toEach.map((each, index) => each.vector(`broker services to ${index === 0 ? "bob" : "carol"}`))
    ],
    judged: judged.map((each) => ({ ...each, now_ms: nowMs, verdict: "taken" }) as Judged)
  })
}

const endToEnd = (shop: Workshop): VectorFile => {
  const document = messageOf(shop, { level: "end_to_end" })
  const inside = shop.made("alice's message", "alice", document)
  const sealed = seal(shop, "alice", inside.wire, "bob", { level: "end_to_end" })
  const delivery = shop.made("its delivery to bob", brokerServices, {
    type: "postern/delivery/v1",
    to: "bob",
    content: JSON.parse(sealed.wire),
    delivered_at_ms: nowMs
  })
  const common = { inbox: "private" as const, now_ms: nowMs, verdict: "taken" }
  return file(shop, "End-to-end messages: sealed to the recipient's own key, delivered closed.", {
    made: [inside, delivery],
    sealed: [sealed.vector("alice to bob")],
    judged: [
      { name: "to broker services", by: "broker_services", from: "alice", wire: sealed.wire, ...common },
      { name: "to bob", by: "agent", agent: "bob", wire: delivery.wire, message: document, ...common }
    ]
  })
}

const directory = (shop: Workshop): VectorFile => {
  const entry = (name: string, status: string, edges: ReadonlyArray<string>) => ({
    agent: name,
    device: shop.party(name).id,
    signing_key: shop.party(name).signer.signingKey,
    agreement: { key: shop.party(name).agreementKey, version: 1 },
    status,
    edge_devices: edges
  })
  const times = { issued_at_ms: nowMs, expires_at_ms: nowMs + 900_000 }
  const common = { type: "postern/directory/v1", version: nowMs, parts: 2, ...times }
  const made = [
    shop.made("the first part", brokerServices, {
      ...common,
      part: 1,
      agents: [entry("alice", "C", ["arduino-1"]), entry("bob", "DG", [])]
    }),
    shop.made("the second part", brokerServices, { ...common, part: 2, agents: [entry("carol", "DU", [])] })
  ]
  return file(shop, "The list of agents that may be seen.", { made, judged: read(made, "directory") })
}

const status = (shop: Workshop): VectorFile => {
  const made = ["C", "DG", "DU"].map((each) =>
    shop.made(each === "DU" ? "DU, the last will" : each, "alice", {
      type: "postern/status/v1",
      agent: "alice",
      session: shop.id("a session"),
      status: each,
      issued_at_ms: nowMs
    })
  )
  return file(shop, "Whether an agent is there.", { made, judged: read(made, "status") })
}

const ping = (shop: Workshop): VectorFile => {
  const nonce = shop.id("a question")
  const made = [
    shop.made("alice asks bob", "alice", {
      type: "postern/ping/v1",
      from: "alice",
      to: "bob",
      nonce,
      issued_at_ms: nowMs
    }),
    shop.made("bob answers", "bob", {
      type: "postern/pong/v1",
      from: "bob",
      to: "alice",
      nonce,
      issued_at_ms: nowMs + 12
    })
  ]
  return file(shop, "Questions whether somebody is there, and their answers.", {
    made,
    judged: read(made, "ping")
  })
}

/** All files by their names. */
export const vectorFiles = (engine: Engine): Readonly<Record<string, VectorFile>> => {
  const shop = makeWorkshop(engine)
  return {
    "handshake.json": handshake(shop),
    "protected.json": protectedMessages(shop),
    "private.json": privateMessages(shop),
    "end-to-end.json": endToEnd(shop),
    "directory.json": directory(shop),
    "status.json": status(shop),
    "ping.json": ping(shop),
    "refusals.json": file(
      shop,
      `What is refused, and why. A message has at most ${MessageLimits.messageBytes} bytes.`,
      { judged: refusals(shop) }
    )
  }
}

export const vectorText = (content: VectorFile): string => `${JSON.stringify(content, null, 2)}\n`

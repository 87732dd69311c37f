import { execFileSync } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Result } from "effect"
import fc from "fast-check"
import { expect, it } from "vitest"
import {
  type Judged,
  makeWorkshop,
  messageOf,
  nowMs,
  seal,
  text,
  type Workshop
} from "../../scripts/lib/messaging-vectors.ts"
import { NativeCrypto } from "../../src/adapters/NativeCrypto.ts"
import { bodyFlaw } from "../../src/crypto/Messages.ts"
import { receive } from "../../src/crypto/Reception.ts"
import { MessageLimits } from "../../src/schemas/Message.ts"
import { type AgentName, brokerServices } from "../../src/schemas/Topics.ts"
import { describeWith } from "../support/requires.ts"

const shop = makeWorkshop(NativeCrypto)
const names = ["alice", "bob", "carol", "mallory", brokerServices]
const { futureMs, lifetimeMs, receivedFutureMs } = MessageLimits
const nested = (depth: number): unknown =>
  Array.from({ length: depth }).reduce<unknown>((inner) => [inner], 0)

/** What may stand in a member in place of what should: good in another place, at an edge, just beyond it, or nonsense. */
const others: Readonly<Record<string, ReadonlyArray<unknown>>> = {
  type: ["postern/message/v1", "postern/sealed/v1", "postern/delivery/v1", ""],
  id: [shop.id("another"), "A".repeat(26), "a"],
  level: ["protected", "private", "end_to_end", "public", null],
  from: [...names, "", "-a", "x".repeat(64)],
  to: ["bob", "carol", brokerServices, ["bob"], ["bob", "carol"], ["bob", "bob"], [], "Bob"],
  issued_at_ms: [nowMs + futureMs, nowMs + receivedFutureMs, nowMs + receivedFutureMs + 1, -1, 0.5],
  expires_at_ms: [nowMs, nowMs + 1, nowMs - 5_000 + lifetimeMs, nowMs - 5_000 + lifetimeMs + 1, "1"],
  subject: [
    "",
    "x".repeat(129),
    "\u{1f600}".repeat(64),
    "\u{1f600}".repeat(65),
    "\u0000",
    "\u200b",
    "\u2028"
  ],
  body: [
    null,
    1e-7,
    nested(MessageLimits.bodyDepth),
    nested(MessageLimits.bodyDepth + 1),
    "x".repeat(73_000)
  ],
  recipient_key: [...names.map((name) => shop.party(name).agreementKey), "AAAA"],
  enc: [`${"A".repeat(43)}=`, `${"A".repeat(42)}B=`, shop.party("bob").agreementKey],
  ciphertext: ["", "AAAA", "AB==", "A"],
  signing_key: [...names.map((name) => shop.party(name).signer.signingKey), `${"A".repeat(42)}B=`],
  signature: [`${"A".repeat(86)}==`, `${"A".repeat(85)}B==`, ""],
  delivered_at_ms: [0, -1],
  content: [null, {}],
  unknown: [1]
}
const bend = fc
  .constantFrom(...Object.keys(others))
  .chain((member) =>
    fc.constantFrom(undefined, ...(others[member] as Array<unknown>)).map((value) => ({ member, value }))
  )
type Bend = typeof bend extends fc.Arbitrary<infer A> ? A : never

/** A few members of a document changed; those that are `undefined` taken away. */
const bent = (document: object, bends: ReadonlyArray<Bend>): Record<string, unknown> => {
  const members: Record<string, unknown> = { ...document }
  for (const { member, value } of bends) members[member] = value
  return members
}

/** One thing changed in many, so that most checks are reached. */
const seldom = <A>(usual: A, ...rest: ReadonlyArray<A>) =>
  fc.oneof({ weight: 12, arbitrary: fc.constant(usual) }, { weight: 1, arbitrary: fc.constantFrom(...rest) })
const few = fc.oneof(
  { weight: 5, arbitrary: fc.constant<ReadonlyArray<Bend>>([]) },
  { weight: 1, arbitrary: bend.map((one): ReadonlyArray<Bend> => [one]) }
)
const signer = seldom<string | null>(null, ...names)

const plan = fc.record({
  level: fc.constantFrom("protected", "private", "end_to_end"),
  body: fc.jsonValue({ maxDepth: 4 }).filter((value) => bodyFlaw(value) === undefined),
  inside: few,
  box: few,
  delivery: few,
  wire: few,
  insideBy: signer,
  boxBy: signer,
  deliveryBy: signer,
  recipient: seldom("bob", "carol"),
  inbox: seldom<boolean>(true, false)
})
type Plan = typeof plan extends fc.Arbitrary<infer A> ? A : never

const signAs = (who: string, document: Record<string, unknown>): string => {
  const { signature: _, signing_key: _key, ...rest } = document
  return shop.sign(who, rest)
}

/** What comes into an inbox of bob's by a plan. */
const wireOf = (by: Plan): string => {
  const level = by.level as "protected" | "private" | "end_to_end"
  const document = bent(messageOf(shop as Workshop, { level, body: by.body as never }), by.inside)
  const inside = signAs(by.insideBy ?? "alice", document)
  const deliver = (content: string): string => {
    const members = {
      type: "postern/delivery/v1",
      to: "bob",
      content: JSON.parse(content),
      delivered_at_ms: nowMs
    }
    return signAs(by.deliveryBy ?? brokerServices, bent(members, by.delivery))
  }
  const sealedBy = level === "private" ? brokerServices : "alice"
  const sealed = () => {
    const header = { level, from: sealedBy as AgentName } as never
    const { wire } = seal(shop, by.boxBy ?? sealedBy, inside, by.recipient, header)
    return by.box.length === 0 ? wire : signAs(by.boxBy ?? sealedBy, bent(JSON.parse(wire), by.box))
  }
  const wire = level === "protected" ? deliver(inside) : level === "private" ? sealed() : deliver(sealed())
  return by.wire.length === 0 ? wire : text(bent(JSON.parse(wire), by.wire))
}

const bob = shop.party("bob")
const receiver = {
  name: bob.name,
  agreements: new Map([
    [
      bob.agreementKey,
      { secret: bob.agreementSecret, public: NativeCrypto.x25519.publicKey(bob.agreementSecret) }
    ]
  ]),
  services: new Set([shop.party(brokerServices).signer.signingKey]),
  keyOf: (agent: AgentName) => (agent === "alice" ? shop.party("alice").signer.signingKey : undefined)
}

/** A case as vectors have it, with the verdict of this program. */
const judged = (by: Plan, index: number): ReadonlyArray<Judged> => {
  const isPrivate = (by.level !== "protected") === by.inbox
  const inbox = isPrivate ? "private" : "protected"
  try {
    const wire = wireOf(by)
    const verdict = receive(NativeCrypto, receiver, inbox, new TextEncoder().encode(wire), nowMs)
    const code = Result.isFailure(verdict) ? verdict.failure.code : "taken"
    return [{ name: `case ${index}`, by: "agent", agent: "bob", inbox, now_ms: nowMs, wire, verdict: code }]
  } catch (error) {
    // Numbers that no document can hold.
    if (error instanceof TypeError) return []
    throw error
  }
}

describeWith(
  ["python3", "python3-cryptography"],
  "a second reader of the wire, written from its page",
  () => {
    it("judges whatever comes as this one does", () => {
      const cases = fc.sample(plan, { numRuns: 600, seed: 5 }).flatMap(judged)
      const verdicts = new Set(cases.map(({ verdict }) => verdict))
      expect(cases.length).toBeGreaterThan(500)
      // Most kinds of verdict are among them, so that their agreement says something.
      expect([...verdicts].length).toBeGreaterThan(9)
      const folder = mkdtempSync(join(tmpdir(), "postern-vectors-"))
      try {
        writeFileSync(join(folder, "cases.json"), JSON.stringify({ keys: shop.keys, judged: cases }))
        const script = join(import.meta.dirname, "../../examples/python/vectors.py")
        const said = execFileSync("/usr/bin/python3", ["-B", script, folder], { encoding: "utf8" })
        expect(said).toMatch(/^([0-9]+) of \1 vectors hold\n$/)
      } finally {
        rmSync(folder, { recursive: true })
      }
    })
  }
)

/** Making the next trust root: edits, key cards, and what signatures a draft needs. */
import { describe, expect, it } from "@effect/vitest"
import { Result } from "effect"
import { signDocument } from "../../src/crypto/Documents.ts"
import { signEnvelope } from "../../src/crypto/Dsse.ts"
import { keyCardPrefix, type ProvedCard, readKeyCard, writeKeyCard } from "../../src/crypto/KeyCards.ts"
import { describeChanges, joinSignatures, judgeDraft } from "../../src/crypto/RootDrafts.ts"
import {
  addKey,
  addServer,
  nextRoot,
  type RootEdit,
  removeKey,
  removeServer,
  revokeOperator,
  setAddresses,
  setBrokerServices,
  setThreshold
} from "../../src/crypto/RootEdits.ts"
import { verifyNextRoot } from "../../src/crypto/Trust.ts"
import type { TrustRoot } from "../../src/schemas/TrustRoot.ts"
import {
  engine,
  type Key,
  keyOf,
  operator,
  recovery,
  rootOf,
  signRoot,
  stranger
} from "../actors/support/Parties.ts"
import { serverIdentity } from "../support/operators.ts"

const times = { nowMs: 1_000, expiresAtMs: 2_000 * 86_400_000 }
const cardOf = (key: Key, signs = false): string =>
  writeKeyCard(
    engine,
    {
      type: "postern/key/v1",
      label: key.name,
      public_key: key.signingKey,
      recipient: signs ? null : key.recipient
    },
    key.signer
  )
const proved = (key: Key, signs = false): ProvedCard =>
  Result.getOrThrow(readKeyCard(engine, cardOf(key, signs)))
const bea = keyOf("bea")
const carl = keyOf("carl")

const made = (edits: ReadonlyArray<RootEdit>, from: TrustRoot = rootOf()): TrustRoot =>
  Result.getOrThrow(nextRoot(engine, from, edits, times))
const whyNot = (edits: ReadonlyArray<RootEdit>, from: TrustRoot = rootOf()): string => {
  const tried = nextRoot(engine, from, edits, times)
  return Result.isFailure(tried) ? tried.failure : "it was made"
}

describe("a key card", () => {
  it("carries a key and what is encrypted to, proved by the key itself", () => {
    expect(proved(bea)).toEqual({
      keyId: bea.keyId,
      card: { type: "postern/key/v1", label: "bea", public_key: bea.signingKey, recipient: bea.recipient }
    })
    expect(Result.isSuccess(readKeyCard(engine, `  ${cardOf(bea)}\n`))).toBe(true)
  })
  it("is refused where somebody put another recipient, another label or another key into it", () => {
    const card = proved(bea).card
    const forged = [
      { recipient: stranger.recipient },
      { label: "beate" },
      { public_key: stranger.signingKey }
    ]
    for (const change of forged) {
      const { envelope } = signDocument(engine, "key", { ...card, ...change }, [
        { keyId: bea.keyId, seed: change.public_key === undefined ? stranger.signer.seed : bea.signer.seed }
      ])
      const word = `${keyCardPrefix}${Buffer.from(JSON.stringify(envelope)).toString("base64url")}`
      expect(Result.isFailure(readKeyCard(engine, word))).toBe(true)
    }
  })
  it("is refused where any character was lost or changed", () => {
    const word = cardOf(bea)
    expect(Result.isFailure(readKeyCard(engine, word.slice(0, -1)))).toBe(true)
    for (let at = 0; at < word.length; at += 7) {
      const other = word[at] === "A" ? "B" : "A"
      expect(Result.isFailure(readKeyCard(engine, word.slice(0, at) + other + word.slice(at + 1)))).toBe(true)
    }
    for (const junk of ["", "hello", keyCardPrefix, `${keyCardPrefix}e30`])
      expect(Result.isFailure(readKeyCard(engine, junk))).toBe(true)
  })
})

describe("edits of a root", () => {
  it("add operators and root keys, and take them away with all that is said of them", () => {
    const two = made([addKey(proved(bea), ["operators", "root"]), setThreshold("root", 2)])
    expect(two).toMatchObject({ version: 2, issued_at_ms: 1_000, expires_at_ms: times.expiresAtMs })
    expect(two.roles.operators.keys).toEqual([operator.keyId, bea.keyId])
    expect(two.roles.root).toEqual({ keys: [recovery.keyId, bea.keyId], threshold: 2 })
    const three = made([revokeOperator("bea"), setThreshold("root", 1)], two)
    expect(three.roles.root.keys).toEqual([recovery.keyId])
    expect(Object.keys(three.keys)).not.toContain(bea.keyId)
    const half = made([removeKey(bea.keyId.slice(0, 12), ["operators"])], two)
    expect(half.roles.root.keys).toContain(bea.keyId)
    expect(half.keys[bea.keyId]?.label).toBe("bea")
  })
  it("add servers, move and remove them, and name the key of broker services", () => {
    const other = { ...serverIdentity, addresses: ["https://two.example"] }
    const two = made([addServer(engine, other, other.addresses), setBrokerServices(proved(bea))])
    expect(two.servers.map(({ addresses }) => addresses[0])).toEqual([
      "http://127.0.0.1:8470",
      "https://two.example"
    ])
    expect(two.roles.broker_services).toEqual({ keys: [bea.keyId], threshold: 1 })
    expect(two.roles.servers.keys).toHaveLength(2)
    expect(whyNot([setAddresses(null, ["http://a"])], two)).toMatch(/names 2 servers: say which/)
    const moved = made([setAddresses(other.server, ["https://new.example"])], two)
    expect(moved.servers[1]?.addresses).toEqual(["https://new.example"])
    const one = made([removeServer(other.server), setBrokerServices(null)], two)
    expect(one.servers).toHaveLength(1)
    expect(Object.keys(one.keys)).toEqual(Object.keys(rootOf().keys))
  })
  it("are refused where nobody could act afterwards, or it is not clear what is meant", () => {
    const refused: ReadonlyArray<readonly [RegExp, ReadonlyArray<RootEdit>]> = [
      [/no root key called nobody/, [removeKey("nobody", ["root"])]],
      [/there would be no root key any more/, [removeKey("recovery", ["root"])]],
      [/there would be no operator any more/, [revokeOperator("operator")]],
      [/no operator called recovery/, [revokeOperator("recovery")]],
      [
        /2 signatures of root keys would be needed, and there would be 1.*--threshold root=N/,
        [setThreshold("root", 2)]
      ],
      [/between 1 and 8/, [setThreshold("root", 0)]],
      [/between 1 and 8/, [setThreshold("operators", 9)]],
      [/operator is operator already/, [addKey(proved(operator), ["operators"])]],
      [/only signs roots: it cannot be an operator/, [addKey(proved(bea, true), ["operators"])]],
      [/no server could carry it/, [removeServer(rootOf().servers[0]?.id ?? "")]],
      [
        /names the server .* already/,
        [addServer(engine, serverIdentity, ["http://a"]), addServer(engine, serverIdentity, ["http://a"])]
      ],
      [
        /another key that is called operator/,
        [addKey({ ...proved(carl), card: { ...proved(carl).card, label: "operator" } }, ["operators"])]
      ]
    ]
    for (const [reason, edits] of refused) expect(whyNot(edits)).toMatch(reason)
    expect(whyNot([], { ...rootOf(), version: 256 })).toMatch(/at most 256 roots/)
    expect(Result.isFailure(nextRoot(engine, rootOf(), [], { nowMs: 5, expiresAtMs: 5 }))).toBe(true)
  })
  it("are told in sentences, the end of the root always among them", () => {
    const two = made([addKey(proved(bea), ["operators"]), revokeOperator("operator")])
    expect(describeChanges(rootOf(), two)).toEqual([
      `adds the operator bea (${bea.keyId})`,
      `takes away the operator operator (${operator.keyId})`,
      "is good for 2000 days from when it was drafted (1000 days later than before)"
    ])
    const shorter = made([], { ...rootOf(), expires_at_ms: times.expiresAtMs + 86_400_000 })
    expect(describeChanges({ ...rootOf(), expires_at_ms: times.expiresAtMs + 86_400_000 }, shorter)).toEqual([
      "is good for 2000 days from when it was drafted (1 day EARLIER)"
    ])
    const elsewhere = made([setAddresses(null, ["https://new.example"]), setThreshold("operators", 1)])
    expect(describeChanges(rootOf(), elsewhere)[0]).toMatch(
      /devices reach srv_\w+ at https:\/\/new.example, no longer at/
    )
  })
})

describe("a draft", () => {
  const team = [keyOf("t1"), keyOf("t2"), keyOf("t3")] as const
  const teamRoot = made([
    ...team.map((key) => addKey(proved(key, true), ["root"])),
    removeKey("recovery", ["root"]),
    setThreshold("root", 2)
  ])
  const current = signDocument(engine, "root", teamRoot, [team[0].signer, team[1].signer]).envelope
  const unsigned = (edits: ReadonlyArray<RootEdit>) =>
    signDocument(engine, "root", made(edits, teamRoot), []).envelope
  const signedBy = (draft: ReturnType<typeof unsigned>, ...keys: ReadonlyArray<Key>) => {
    const payload = Buffer.from(draft.payload, "base64")
    return keys.reduce(
      (sum, key) =>
        joinSignatures(sum, signEnvelope(engine, draft.payloadType, payload, [key.signer])) ?? sum,
      draft
    )
  }
  const judgeOf = (draft: ReturnType<typeof unsigned>) =>
    Result.getOrThrow(judgeDraft(engine, current, draft))

  it("needs two of three, of the version before and of its own", () => {
    const draft = unsigned([addKey(proved(bea), ["operators"])])
    expect(judgeOf(draft)).toMatchObject({ complete: false, needs: [{ signed: [] }, { signed: [] }] })
    const one = signedBy(draft, team[0])
    expect(judgeOf(one).complete).toBe(false)
    expect(Result.isFailure(verifyNextRoot(engine, teamRoot, one))).toBe(true)
    // Signed again by the same key, or by a stranger, it is no nearer.
    expect(judgeOf(signedBy(one, team[0], stranger)).complete).toBe(false)
    const apart = signedBy(draft, team[2])
    const both = joinSignatures(one, apart) ?? one
    expect(judgeOf(both)).toMatchObject({ complete: true })
    expect(Result.isSuccess(verifyNextRoot(engine, teamRoot, both))).toBe(true)
  })
  it("that replaces a root key needs enough of the old keys and of the new ones", () => {
    const draft = unsigned([
      removeKey("t1", ["root"]),
      removeKey("t2", ["root"]),
      addKey(proved(bea, true), ["root"])
    ])
    const olds = signedBy(draft, team[0], team[1])
    expect(judgeOf(olds).needs.map(({ signed }) => signed.length)).toEqual([2, 0])
    expect(judgeOf(olds).complete).toBe(false)
    const all = signedBy(olds, team[2], bea)
    expect(judgeOf(all).needs.map(({ signed }) => signed.length)).toEqual([3, 2])
    expect(Result.isSuccess(verifyNextRoot(engine, teamRoot, all))).toBe(true)
  })
  it("is not looked into where the root it starts from does not hold, or it is not the next one", () => {
    const draft = unsigned([])
    const forged = signDocument(engine, "root", teamRoot, [stranger.signer]).envelope
    expect(Result.isFailure(judgeDraft(engine, forged, draft))).toBe(true)
    expect(Result.isFailure(judgeDraft(engine, signRoot(rootOf()).envelope, draft))).toBe(true)
    expect(joinSignatures(draft, unsigned([setThreshold("root", 1)]))).toBeUndefined()
  })
})

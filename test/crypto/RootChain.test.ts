/**
 * Chains of trust roots: whatever roles, thresholds, signers and breaks a chain is made of, it is followed exactly as far
 * as every link is the next version, unchanged, and signed by the root thresholds of the version before and its own.
 */
import { describe, expect, it } from "@effect/vitest"
import * as fc from "fast-check"
import { followRoots } from "../../src/actors/TrustState.ts"
import { encodeBase64 } from "../../src/crypto/Base64.ts"
import { canonicalBytes } from "../../src/crypto/CanonicalJson.ts"
import { digestOfEnvelope, signDocument } from "../../src/crypto/Documents.ts"
import { verifyFirstRoot } from "../../src/crypto/Trust.ts"
import type { DsseEnvelope } from "../../src/schemas/Dsse.ts"
import type { HeldRoot } from "../../src/schemas/protocols/TrustKeeper.ts"
import type { TrustRoot } from "../../src/schemas/TrustRoot.ts"
import { engine, keyOf, rootOf, server } from "../actors/support/Parties.ts"

const pool = ["a", "b", "c", "d", "e"].map((name) => keyOf(`chain ${name}`))
const stranger = keyOf("chain stranger")

interface Link {
  /** Root keys of this version, as places in the pool. */
  readonly keys: ReadonlyArray<number>
  /** How many of them must sign, at most as many as there are. */
  readonly threshold: number
  /** Who signs it: places in the pool. */
  readonly signers: ReadonlyArray<number>
  readonly expired: boolean
  /** What is done to it. */
  readonly fault: "none" | "skip" | "repeat" | "changed" | "doubled" | "stranger" | "unsigned"
}

const subset = (minimum: number) =>
  fc.uniqueArray(fc.integer({ min: 0, max: pool.length - 1 }), { minLength: minimum, maxLength: pool.length })

const link: fc.Arbitrary<Link> = fc
  .record({
    keys: subset(1),
    wanted: fc.integer({ min: 1, max: pool.length }),
    signers: fc.oneof(
      { weight: 3, arbitrary: fc.constant(pool.map((_, at) => at)) },
      { arbitrary: subset(0), weight: 1 }
    ),
    expired: fc.boolean(),
    fault: fc.oneof(
      { weight: 12, arbitrary: fc.constant("none" as const) },
      {
        weight: 1,
        arbitrary: fc.constantFrom("skip", "repeat", "changed", "doubled", "stranger", "unsigned" as const)
      }
    )
  })
  .map(({ wanted, ...rest }) => ({ ...rest, threshold: Math.min(wanted, rest.keys.length) }))

const documentOf = ({ expired, keys, threshold }: Link, version: number): TrustRoot => {
  const members = keys.map((at) => pool[at] as (typeof pool)[number])
  const plain = rootOf({ version })
  const issued_at_ms = 1_000
  return {
    ...plain,
    issued_at_ms,
    expires_at_ms: expired ? issued_at_ms + 1 : plain.expires_at_ms,
    keys: {
      ...plain.keys,
      ...Object.fromEntries(
        members.map((key) => [
          key.keyId,
          { algorithm: "ed25519", public_key: key.signingKey, label: key.name, recipient: key.recipient }
        ])
      )
    },
    roles: { ...plain.roles, root: { keys: members.map((key) => key.keyId), threshold } }
  }
}

const envelopeOf = (made: Link, version: number): DsseEnvelope => {
  const shift = { skip: 1, repeat: -1 }[made.fault as string] ?? 0
  const document = documentOf(made, Math.max(1, version + shift))
  const signers =
    made.fault === "stranger"
      ? [stranger]
      : made.fault === "unsigned"
        ? []
        : made.signers.map((at) => pool[at] as (typeof pool)[number])
  const { envelope } = signDocument(
    engine,
    "root",
    document,
    signers.map((key) => key.signer)
  )
  if (made.fault === "changed") {
    const changed = canonicalBytes({ ...document, expires_at_ms: document.expires_at_ms + 1 })
    return { ...envelope, payload: encodeBase64(changed) }
  }
  // The same signature many times is still one.
  const once = envelope.signatures.slice(0, 1)
  return made.fault === "doubled"
    ? { ...envelope, signatures: [...once, ...once, ...once, ...once] }
    : envelope
}

/** Whether a link holds, told without any cryptography. */
const holds = (before: Link, made: Link): boolean => {
  if (["skip", "repeat", "changed", "stranger", "unsigned"].includes(made.fault)) return false
  const signers = new Set(made.fault === "doubled" ? made.signers.slice(0, 1) : made.signers)
  return [before, made].every(
    ({ keys, threshold }) => keys.filter((at) => signers.has(at)).length >= threshold
  )
}

const heldFirst = (first: Link): HeldRoot => {
  const { envelope } = signDocument(
    engine,
    "root",
    documentOf(first, 1),
    first.keys.map((at) => (pool[at] as (typeof pool)[number]).signer)
  )
  const verified = verifyFirstRoot(engine, envelope, null)
  if (verified._tag === "Failure") throw verified.failure
  const { digest, document } = verified.success
  return { firstDigest: digest, server, envelope, root: document }
}

describe("a chain of roots", () => {
  it("is followed as far as it holds, and no link further", () => {
    let reached = 0
    fc.assert(
      fc.property(fc.array(link, { minLength: 2, maxLength: 7 }), (links) => {
        const [first, ...rest] = links as [Link, ...Array<Link>]
        const chain = rest.map((made, at) => envelopeOf(made, at + 2))
        const broken = rest.findIndex((made, at) => !holds(links[at] as Link, made))
        const expected = broken === -1 ? links.length : broken + 1
        const { doubt, held } = followRoots(engine, heldFirst(first), chain)
        expect(held.root.version).toBe(expected)
        expect(doubt === null).toBe(broken === -1)
        reached = Math.max(reached, expected)
      }),
      { numRuns: 100 }
    )
    // The generator must make long good chains too, or all this proves little.
    expect(reached).toBeGreaterThanOrEqual(4)
  })

  it("is not followed where two of its links change places, or one is missing, or comes from another chain", () => {
    const links: ReadonlyArray<Link> = Array.from({ length: 7 }, (_, at) => ({
      keys: [at % 5, (at + 1) % 5, (at + 2) % 5],
      threshold: 2,
      signers: [0, 1, 2, 3, 4],
      expired: true,
      fault: "none"
    }))
    const first = heldFirst(links[0] as Link)
    const chain = links.slice(1).map((made, at) => envelopeOf(made, at + 2))
    const versionOf = (given: ReadonlyArray<DsseEnvelope>) =>
      followRoots(engine, first, given).held.root.version
    expect(versionOf(chain)).toBe(7)
    for (let at = 0; at < chain.length - 1; at++) {
      const swapped = chain.with(at, chain[at + 1] as DsseEnvelope).with(at + 1, chain[at] as DsseEnvelope)
      expect(versionOf(swapped)).toBe(at + 1)
      expect(versionOf(chain.toSpliced(at, 1))).toBe(at + 1)
    }
    const foreign = signDocument(engine, "root", rootOf({ version: 4 }), [keyOf("recovery").signer]).envelope
    expect(versionOf(chain.with(2, foreign))).toBe(3)
    expect(digestOfEnvelope(engine, foreign)).not.toBe(digestOfEnvelope(engine, chain[2] as DsseEnvelope))
  })
})

import { describe, expect, it } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import { formatRecipient } from "../../src/crypto/AgeKeys.ts"
import { encodeBase64 } from "../../src/crypto/Base64.ts"
import { digestOfEnvelope, openUnverified, signDocument, verifyDocument } from "../../src/crypto/Documents.ts"
import type { EnvelopeSigner } from "../../src/crypto/Dsse.ts"
import { deriveId } from "../../src/crypto/IdentityKeys.ts"
import { invitationId, invitationProofFits, proveInvitation } from "../../src/crypto/Invitations.ts"
import { NobleEngine } from "../../src/crypto/NobleEngine.ts"
import {
  brokerServicesOf,
  keyIdOf,
  verifyAdmission,
  verifyCancel,
  verifyEnrolment,
  verifyFirstRoot,
  verifyNextRoot,
  verifyOrder,
  verifyReceipt,
  verifyServerIdentity,
  verifyStatement
} from "../../src/crypto/Trust.ts"
import type { DsseEnvelope } from "../../src/schemas/Dsse.ts"
import type { Digest, Recipient, SigningKey } from "../../src/schemas/Ids.ts"
import { TrustRoot } from "../../src/schemas/TrustRoot.ts"
import { WorkOrder } from "../../src/schemas/WorkOrder.ts"

const engine = NobleEngine

/** Keys of a party, all from one byte. */
const party = (byte: number) => {
  const seed = new Uint8Array(32).fill(byte)
  const publicKey = engine.ed25519.publicKey(seed)
  const encryptionKey = engine.x25519.publicKey(seed)
  return {
    seed,
    publicKey,
    encryptionKey,
    keyId: keyIdOf(engine, publicKey),
    signingKey: encodeBase64(publicKey) as SigningKey,
    recipient: formatRecipient(encryptionKey) as Recipient
  }
}
type Party = ReturnType<typeof party>

const alice = party(1)
const bob = party(2)
const recovery = party(3)
const mallory = party(9)
const server = party(4)
const device = party(5)
const serverId = deriveId(engine, "server", server.publicKey, server.encryptionKey)
const deviceId = deriveId(engine, "device", device.publicKey, device.encryptionKey)

const key = (owner: Party, label: string, recipient: Recipient | null = owner.recipient) => ({
  algorithm: "ed25519" as const,
  public_key: owner.signingKey,
  label,
  recipient
})

const root = (changes: Partial<TrustRoot> = {}): TrustRoot => ({
  type: "postern/root/v1",
  version: 1,
  issued_at_ms: 1_000,
  expires_at_ms: 9_000,
  keys: {
    [alice.keyId]: key(alice, "alice"),
    [bob.keyId]: key(bob, "bob"),
    [recovery.keyId]: key(recovery, "recovery", null),
    [server.keyId]: key(server, "server")
  },
  roles: {
    root: { keys: [alice.keyId, recovery.keyId], threshold: 1 },
    operators: { keys: [alice.keyId, bob.keyId], threshold: 1 },
    servers: { keys: [server.keyId], threshold: 1 },
    broker_services: { keys: [], threshold: 1 }
  },
  servers: [
    { id: serverId, key: server.keyId, recipient: server.recipient, addresses: ["http://127.0.0.1:8470"] }
  ],
  ...changes
})

const signer = (owner: Party, keyId: string = owner.keyId): EnvelopeSigner => ({ keyId, seed: owner.seed })
const signRoot = (document: TrustRoot, ...owners: ReadonlyArray<Party>) =>
  signDocument(
    engine,
    "root",
    document,
    owners.map((owner) => signer(owner))
  ).envelope

const zeroDigest = `sha256:${"0".repeat(64)}` as Digest
const order = (changes: Record<string, unknown> = {}) => ({
  type: "postern/order/v1",
  id: "01900000-0000-7000-8000-000000000001",
  device: deviceId,
  lane: "job",
  counter: 1,
  previous: null,
  root_version: 1,
  issued_at_ms: 1_000,
  expires_at_ms: 2_000,
  deadline_at_ms: 2_000,
  payload: { digest: zeroDigest, size_bytes: 1, unpacked_bytes: 1, entries: 1 },
  results_to: [alice.recipient],
  ...changes
})
const signOrder = (document: unknown, ...signers: ReadonlyArray<EnvelopeSigner>) =>
  signDocument(engine, "order", document, signers).envelope

const codeOf = (verdict: Result.Result<unknown, { readonly code: string }>) =>
  Result.isFailure(verdict) ? verdict.failure.code : "trusted"

describe("orders", () => {
  it("takes an order by one operator, and names digest and signer", () => {
    const envelope = signOrder(order(), signer(alice))
    const verdict = Result.getOrThrow(verifyOrder(engine, root(), envelope))
    expect(verdict.document.counter).toBe(1)
    expect(verdict.digest).toBe(digestOfEnvelope(engine, envelope))
    expect([...verdict.signers]).toEqual([alice.keyId])
  })

  it("has a code for each way of being untrusted", () => {
    const twoNeeded = root({
      roles: { ...root().roles, operators: { keys: [alice.keyId, bob.keyId], threshold: 2 } }
    })
    const good = signOrder(order(), signer(alice))
    const altered = { ...good, payload: signOrder(order({ counter: 2 }), signer(alice)).payload }
    const forged = signOrder(order(), signer(mallory, alice.keyId))
    expect(codeOf(verifyOrder(engine, root(), signOrder(order(), signer(mallory))))).toBe("unknown_key")
    expect(codeOf(verifyOrder(engine, root(), signOrder(order(), signer(recovery))))).toBe("unknown_key")
    expect(codeOf(verifyOrder(engine, root(), altered))).toBe("bad_signature")
    expect(codeOf(verifyOrder(engine, root(), forged))).toBe("bad_signature")
    expect(codeOf(verifyOrder(engine, twoNeeded, good))).toBe("threshold_not_met")
    expect(codeOf(verifyOrder(engine, twoNeeded, signOrder(order(), signer(alice), signer(alice))))).toBe(
      "threshold_not_met"
    )
    expect(codeOf(verifyOrder(engine, twoNeeded, signOrder(order(), signer(alice), signer(bob))))).toBe(
      "trusted"
    )
    expect(codeOf(verifyOrder(engine, root(), signOrder(order({ extra: 1 }), signer(alice))))).toBe(
      "malformed"
    )
    expect(
      codeOf(verifyOrder(engine, root(), signOrder(order({ expires_at_ms: 10 ** 13 }), signer(alice))))
    ).toBe("malformed")
    expect(codeOf(verifyOrder(engine, root(), { ...good, payload: "A".repeat(70_000) }))).toBe("too_large")
    expect(codeOf(verifyOrder(engine, root(), { ...good, more: true }))).toBe("malformed")
    expect(codeOf(verifyOrder(engine, root(), "an order"))).toBe("malformed")
    expect(codeOf(verifyCancel(engine, root(), good))).toBe("malformed")
    expect(codeOf(verifyAdmission(engine, root(), good))).toBe("malformed")
  })

  it("refuses a payload that is good JSON but not canonical", () => {
    const text = JSON.stringify({ ...order(), b: undefined }, null, 1)
    const payload = new TextEncoder().encode(text)
    const sign = signDocument(engine, "order", order(), [signer(alice)]).envelope
    const envelope = { ...sign, payload: encodeBase64(payload) }
    expect(codeOf(openUnverified(engine, "order", WorkOrder, envelope))).toBe("malformed")
  })

  it("trusts nothing with a threshold of zero", () => {
    const envelope = signOrder(order(), signer(alice))
    expect(codeOf(verifyDocument(engine, "order", WorkOrder, envelope, [], 0))).not.toBe("trusted")
  })

  it("trusts no envelope in which any character was changed", () => {
    const good = JSON.stringify(signOrder(order(), signer(alice)))
    const property = fc.property(
      fc.nat(good.length - 1),
      fc.constantFrom("0", "A", "b", "}", "+", '"'),
      (at, character) => {
        fc.pre(good[at] !== character)
        let envelope: unknown
        try {
          envelope = JSON.parse(good.slice(0, at) + character + good.slice(at + 1))
        } catch {
          return
        }
        expect(codeOf(verifyOrder(engine, root(), envelope))).not.toBe("trusted")
      }
    )
    fc.assert(property, { numRuns: 300 })
  })
})

describe("roots", () => {
  it("takes a first root signed by itself, and only the pinned one", () => {
    const envelope = signRoot(root(), alice)
    const first = Result.getOrThrow(verifyFirstRoot(engine, envelope, null))
    expect(codeOf(verifyFirstRoot(engine, envelope, first.digest))).toBe("trusted")
    expect(codeOf(verifyFirstRoot(engine, envelope, zeroDigest))).toBe("unknown_key")
    expect(codeOf(verifyFirstRoot(engine, signRoot(root(), bob), null))).toBe("unknown_key")
  })

  it("refuses keys under ids that are not theirs, and keys of small order", () => {
    const swapped = root({ keys: { ...root().keys, [alice.keyId]: key(mallory, "alice") } })
    const small = encodeBase64(Uint8Array.from([1, ...new Array(31).fill(0)])) as SigningKey
    const weak = root({ keys: { ...root().keys, [bob.keyId]: { ...key(bob, "bob"), public_key: small } } })
    expect(codeOf(verifyFirstRoot(engine, signRoot(swapped, alice), null))).toBe("malformed")
    expect(codeOf(verifyFirstRoot(engine, signRoot(weak, alice), null))).toBe("malformed")
  })

  it("goes from version to version with the thresholds of both", () => {
    const first = root({
      roles: { ...root().roles, root: { keys: [alice.keyId, recovery.keyId], threshold: 2 } }
    })
    const second = root({ version: 2, roles: { ...root().roles, root: { keys: [bob.keyId], threshold: 1 } } })
    expect(codeOf(verifyNextRoot(engine, first, signRoot(second, alice, recovery, bob)))).toBe("trusted")
    expect(codeOf(verifyNextRoot(engine, first, signRoot(second, alice, bob)))).toBe("threshold_not_met")
    expect(codeOf(verifyNextRoot(engine, first, signRoot(second, alice, recovery)))).toBe("unknown_key")
    const jump = { ...second, version: 3 }
    expect(codeOf(verifyNextRoot(engine, first, signRoot(jump, alice, recovery, bob)))).toBe("malformed")
    expect(codeOf(verifyNextRoot(engine, first, signRoot(first, alice, recovery)))).toBe("malformed")
  })

  it("decodes no role that its keys cannot fill, and no stray server", () => {
    const tooMany = {
      ...root(),
      roles: { ...root().roles, operators: { keys: [alice.keyId], threshold: 2 } }
    }
    const stray = { ...root(), roles: { ...root().roles, servers: { keys: [], threshold: 1 } } }
    for (const document of [tooMany, stray]) {
      const { envelope } = signDocument(engine, "root", document, [signer(alice)])
      expect(codeOf(openUnverified(engine, "root", TrustRoot, envelope))).toBe("malformed")
    }
  })
})

describe("devices and servers", () => {
  const enrolment = (changes: Record<string, unknown> = {}) => ({
    type: "postern/enrolment/v1",
    device: deviceId,
    name: null,
    signing_key: device.signingKey,
    recipient: device.recipient,
    server: serverId,
    root_digest: zeroDigest,
    incarnation: "a".repeat(26),
    invitation: null,
    software: "test",
    issued_at_ms: 1,
    ...changes
  })

  it("takes an enrolment only by the keys its id is made of", () => {
    const sign = (document: unknown, owner: Party) =>
      signDocument(engine, "enrolment", document, [signer(owner, deviceId)]).envelope
    expect(codeOf(verifyEnrolment(engine, sign(enrolment(), device)))).toBe("trusted")
    expect(codeOf(verifyEnrolment(engine, sign(enrolment(), mallory)))).toBe("bad_signature")
    expect(
      codeOf(verifyEnrolment(engine, sign(enrolment({ signing_key: mallory.signingKey }), mallory)))
    ).toBe("malformed")
    expect(codeOf(verifyEnrolment(engine, sign(enrolment({ recipient: mallory.recipient }), device)))).toBe(
      "malformed"
    )
  })

  it("knows a server identity that does not hold together", () => {
    const identity = {
      type: "postern/server-identity/v1",
      server: serverId,
      signing_key: server.signingKey,
      recipient: server.recipient,
      addresses: []
    } as const
    expect(codeOf(verifyServerIdentity(engine, identity))).toBe("trusted")
    expect(codeOf(verifyServerIdentity(engine, { ...identity, recipient: mallory.recipient }))).toBe(
      "malformed"
    )
  })

  it("takes the key of broker services on the server's own word alone", () => {
    const identity = {
      type: "postern/server-identity/v1",
      server: serverId,
      signing_key: server.signingKey,
      recipient: server.recipient,
      addresses: []
    } as const
    const services = party(77)
    const word = (changes: Record<string, unknown> = {}, by: Party = server) =>
      signDocument(
        engine,
        "broker_services",
        {
          type: "postern/broker-services/v1",
          server: serverId,
          signing_key: services.signingKey,
          ...changes
        },
        [{ keyId: serverId, seed: by.seed }]
      ).envelope
    const keyIn = (broker_services: DsseEnvelope) =>
      brokerServicesOf(engine, { ...identity, broker_services })
    expect(brokerServicesOf(engine, identity)).toEqual(Result.succeed(null))
    expect(keyIn(word())).toEqual(Result.succeed(services.signingKey))
    const refused = [
      [word({}, mallory), "bad_signature"],
      [word({ server: `srv_${"a".repeat(52)}` }), "malformed"],
      [word({ signing_key: encodeBase64(new Uint8Array(32)) }), "malformed"],
      [word({ more: 1 }), "malformed"]
    ] as const
    for (const [envelope, code] of refused) {
      expect(codeOf(keyIn(envelope))).toBe(code)
      expect(codeOf(verifyServerIdentity(engine, { ...identity, broker_services: envelope }))).toBe(code)
    }
  })

  it("takes a statement only as the answer it was asked for", () => {
    const expected = {
      server: serverId,
      device: deviceId,
      nonce: "b".repeat(26),
      status: 200,
      bodyDigest: zeroDigest
    }
    const statement = (changes: Record<string, unknown> = {}, owner: Party = server) =>
      signDocument(
        engine,
        "statement",
        {
          type: "postern/statement/v1",
          server: serverId,
          device: deviceId,
          nonce: "b".repeat(26),
          at_ms: 5,
          status: 200,
          body_digest: zeroDigest,
          root_version: 1,
          ...changes
        },
        [signer(owner, serverId)]
      ).envelope
    const judge = (envelope: DsseEnvelope) => codeOf(verifyStatement(engine, root(), envelope, expected))
    expect(judge(statement())).toBe("trusted")
    expect(judge(statement({}, mallory))).toBe("bad_signature")
    expect(judge(statement({ nonce: "c".repeat(26) }))).toBe("bad_signature")
    expect(judge(statement({ status: 404 }))).toBe("bad_signature")
    expect(judge(statement({ body_digest: `sha256:${"1".repeat(64)}` }))).toBe("bad_signature")
    const other = deriveId(engine, "device", alice.publicKey, alice.encryptionKey)
    expect(judge(statement({ device: other }))).toBe("bad_signature")
    expect(codeOf(verifyStatement(engine, root({ servers: [] }), statement(), expected))).toBe("unknown_key")
  })

  it("takes a receipt only by the device it speaks of", () => {
    const receipt = (changes: Record<string, unknown> = {}) => ({
      type: "postern/receipt/v1",
      number: 1,
      previous: null,
      device: deviceId,
      incarnation: "a".repeat(26),
      order: null,
      order_digest: zeroDigest,
      payload_digest: null,
      state: "rejected",
      reason: "malformed",
      detail: null,
      exit_code: null,
      signal: null,
      attempts: 0,
      received_at_ms: 1,
      started_at_ms: null,
      ended_at_ms: 2,
      usage: null,
      output: null,
      artifacts: null,
      isolation: null,
      root_version: 1,
      software: "test",
      ...changes
    })
    const sign = (document: unknown, owner: Party) =>
      signDocument(engine, "receipt", document, [signer(owner, deviceId)]).envelope
    const other = deriveId(engine, "device", alice.publicKey, alice.encryptionKey)
    expect(codeOf(verifyReceipt(engine, deviceId, device.signingKey, sign(receipt(), device)))).toBe(
      "trusted"
    )
    expect(codeOf(verifyReceipt(engine, deviceId, device.signingKey, sign(receipt(), mallory)))).toBe(
      "bad_signature"
    )
    expect(
      codeOf(verifyReceipt(engine, deviceId, device.signingKey, sign(receipt({ device: other }), device)))
    ).toBe("malformed")
  })

  it("takes the proof of an invitation from who has its secret, bound to device, server and root", () => {
    const secret = "a".repeat(32)
    const bound = { device: deviceId, server: serverId, rootDigest: zeroDigest }
    const proof = proveInvitation(engine, secret, bound)
    expect(invitationProofFits(engine, bound, proof)).toBe(true)
    expect(proof.id).toBe(invitationId(engine, secret))
    const other = deriveId(engine, "device", alice.publicKey, alice.encryptionKey)
    const others = { device: other, server: `srv_${"a".repeat(52)}`, rootDigest: `sha256:${"1".repeat(64)}` }
    for (const [name, value] of Object.entries(others))
      expect(invitationProofFits(engine, { ...bound, [name]: value } as typeof bound, proof)).toBe(false)
    const stranger = proveInvitation(engine, "b".repeat(32), bound)
    // Another key under this invitation's id, this key with another's signature, and no key at all.
    expect(invitationProofFits(engine, bound, { ...stranger, id: proof.id })).toBe(false)
    expect(invitationProofFits(engine, bound, { ...proof, signature: stranger.signature })).toBe(false)
    const noKey = encodeBase64(new Uint8Array(32)) as SigningKey
    expect(invitationProofFits(engine, bound, { ...proof, key: noKey })).toBe(false)
    expect(invitationId(engine, secret)).toMatch(/^inv_[a-z2-7]{52}$/)
    expect(JSON.stringify(proof)).not.toContain(secret)
  })
})

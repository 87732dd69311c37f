/** The key of a server's broker services in the trust root: from the server's own word, and from nowhere else. */
import { describe, expect, it } from "@effect/vitest"
import { Result } from "effect"
import { nodeKeyRingFrom } from "../../src/adapters/NodeKeys.ts"
import { firstRoot } from "../../src/adapters/operator/OperatorKeys.ts"
import {
  addServer,
  brokerServicesLabel,
  nextRoot,
  type RootEdit,
  removeServer,
  setBrokerServices,
  setServerBrokerServices
} from "../../src/crypto/RootEdits.ts"
import { keyIdOf, signingKeyBytes, verifyServerIdentity } from "../../src/crypto/Trust.ts"
import type { ServerIdentity } from "../../src/schemas/Enrolment.ts"
import type { SigningKey } from "../../src/schemas/Ids.ts"
import type { TrustRoot } from "../../src/schemas/TrustRoot.ts"
import {
  device,
  engine,
  operator,
  otherDevice,
  recovery,
  server,
  serverIdentity,
  signAs,
  trust
} from "../support/operators.ts"

const key: SigningKey = otherDevice.signingKey
const renewed: SigningKey = device.signingKey

/** What a server says of itself, its broker services among it. */
const identityWith = (
  signingKey: SigningKey,
  by = server,
  of: Pick<ServerIdentity, "server" | "signing_key" | "recipient"> = serverIdentity
): ServerIdentity => ({
  ...serverIdentity,
  ...of,
  broker_services: signAs(by, "broker_services", {
    type: "postern/broker-services/v1",
    server: of.server,
    signing_key: signingKey
  }).envelope
})

const second = nodeKeyRingFrom(engine, "server", new Uint8Array(64).fill(7))
const secondIdentity = identityWith(renewed, second, {
  server: second.id as ServerIdentity["server"],
  signing_key: second.signingKey,
  recipient: second.recipient
})

const idOf = (of: SigningKey) => keyIdOf(engine, signingKeyBytes(of) as Uint8Array)
const times = { nowMs: trust.root.issued_at_ms + 1, expiresAtMs: trust.root.expires_at_ms }
const edited = (edits: ReadonlyArray<RootEdit>, from: TrustRoot = trust.root) =>
  nextRoot(engine, from, edits, times)
const made = (edits: ReadonlyArray<RootEdit>, from?: TrustRoot) => Result.getOrThrow(edited(edits, from))
const whyNot = (edits: ReadonlyArray<RootEdit>, from?: TrustRoot) => {
  const tried = edited(edits, from)
  return Result.isFailure(tried) ? tried.failure : "it was made"
}

describe("the role of broker services", () => {
  it("is in the first root where the server has any, and is empty where it has none", () => {
    const parts = { operator, recovery, addresses: serverIdentity.addresses, nowMs: 1_000, lifetimeMs: 1_000 }
    const { root } = firstRoot(engine, { ...parts, server: identityWith(key) })
    expect(root.roles.broker_services).toEqual({ keys: [idOf(key)], threshold: 1 })
    expect(root.keys[idOf(key)]).toMatchObject({ public_key: key, recipient: null })
    expect(firstRoot(engine, { ...parts, server: serverIdentity }).root.roles.broker_services.keys).toEqual(
      []
    )
  })

  it("is never believed to anybody but the server itself", () => {
    const forged = [
      identityWith(key, otherDevice),
      { ...serverIdentity, broker_services: secondIdentity.broker_services as never },
      {
        ...identityWith(key),
        broker_services: { ...identityWith(key).broker_services, signatures: [] } as never
      }
    ]
    for (const identity of forged) {
      expect(Result.isFailure(verifyServerIdentity(engine, identity))).toBe(true)
      expect(Result.isFailure(edited([setServerBrokerServices(engine, identity)]))).toBe(true)
      expect(
        Result.isFailure(edited([removeServer(server.id), addServer(engine, identity, ["http://a"])]))
      ).toBe(true)
    }
    expect(whyNot([setServerBrokerServices(engine, secondIdentity)])).toMatch(/does not name the server/)
    expect(whyNot([setServerBrokerServices(engine, serverIdentity)])).toMatch(
      /tells no key of broker services/
    )
  })

  it("comes into an older root, is renewed, and a card or nothing takes its place", () => {
    const with1 = made([setServerBrokerServices(engine, identityWith(key))])
    expect(with1.roles.broker_services.keys).toEqual([idOf(key)])
    const again = made([setServerBrokerServices(engine, identityWith(key))], with1)
    expect(again.roles.broker_services.keys).toEqual([idOf(key)])
    const with2 = made([setServerBrokerServices(engine, identityWith(renewed))], again)
    expect(with2.roles.broker_services.keys).toEqual([idOf(renewed)])
    expect(Object.keys(with2.keys)).not.toContain(idOf(key))
    expect(made([setBrokerServices(null)], with2).roles.broker_services.keys).toEqual([])
  })

  it("comes and goes with each server where there are several", () => {
    const one = made([setServerBrokerServices(engine, identityWith(key))])
    const two = made([addServer(engine, secondIdentity, ["https://two.example"])], one)
    expect(two.roles.broker_services).toEqual({ keys: [idOf(key), idOf(renewed)], threshold: 1 })
    expect(two.keys[idOf(renewed)]?.label).toBe(brokerServicesLabel(second.id))
    const moved = made([removeServer(server.id)], two)
    expect(moved.roles.broker_services.keys).toEqual([idOf(renewed)])
    expect(Object.keys(moved.keys)).not.toContain(idOf(key))
  })
})

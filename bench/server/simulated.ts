/** Devices that exist only as keys: accepted in the database of a server that has not started yet, and signing their polls. */
import { randomBytes } from "node:crypto"
import { Effect, Redacted } from "effect"
import { NativeCrypto } from "../../src/adapters/NativeCrypto.ts"
import { type NodeKeyRing, nodeKeyRingFrom } from "../../src/adapters/NodeKeys.ts"
import { firstRoot } from "../../src/adapters/operator/OperatorKeys.ts"
import { SqliteFleetStoreInProcess } from "../../src/adapters/sqlite/SqliteFleetStore.ts"
import { encodeBase32 } from "../../src/crypto/Base32.ts"
import { utf8 } from "../../src/crypto/Bytes.ts"
import { secretKeysEntropyBytes } from "../../src/crypto/IdentityKeys.ts"
import { signRequest } from "../../src/crypto/RequestSignature.ts"
import { FleetStore } from "../../src/ports/FleetStore.ts"
import { deviceApiPath } from "../../src/schemas/DeviceApi.ts"
import type { ServerIdentity } from "../../src/schemas/Enrolment.ts"
import { type DeviceId, Name } from "../../src/schemas/Ids.ts"
import { admission, enrolment, pollBody, statementOf } from "../../test/support/fleet.ts"
import { operator, recovery } from "../../test/support/operators.ts"

export type SimulatedDevice = NodeKeyRing

export const simulatedDevices = (count: number): ReadonlyArray<SimulatedDevice> =>
  Array.from({ length: count }, () =>
    nodeKeyRingFrom(NativeCrypto, "device", randomBytes(secretKeysEntropyBytes))
  )

/** Publishes a root for the server in this state folder, and enrols and accepts the devices. */
export const acceptInto = (
  stateFolder: string,
  server: ServerIdentity,
  address: string,
  devices: ReadonlyArray<SimulatedDevice>
): Promise<void> => {
  const nowMs = Date.now()
  const root = firstRoot(NativeCrypto, {
    operator,
    recovery,
    server,
    addresses: [address],
    nowMs,
    lifetimeMs: 86_400_000
  })
  return Effect.gen(function* () {
    const store = yield* FleetStore
    yield* store.addRoot(1, root.envelope, "bench", nowMs)
    for (const [index, device] of devices.entries()) {
      const asked = enrolment(nowMs, device, { server: server.server, root_digest: root.digest })
      yield* store.enrol(asked.request, asked.envelope, nowMs)
      const name = Name.make(`device-${index}`)
      const { decision, envelope } = admission(nowMs, { name, server: server.server }, device)
      yield* store.admit(decision, envelope, "bench", nowMs)
    }
  }).pipe(
    Effect.provide(SqliteFleetStoreInProcess({ folder: stateFolder, maximumDevices: devices.length })),
    Effect.runPromise
  )
}

export const pollPath = `${deviceApiPath}/poll`

/** A poll's headers and body, signed now and for this server. `waitMs` is how long the server may hold it. */
export const pollParts = (device: SimulatedDevice, authority: string, waitMs: number) => {
  const statement = statementOf({ at_ms: Date.now() }, device)
  const body = utf8(JSON.stringify(pollBody({ wait_ms: waitMs, statement })))
  const parts = { method: "POST", authority, path: pollPath, query: "", contentType: "application/json" }
  const signed = signRequest(NativeCrypto, parts, body, {
    keyId: device.id as DeviceId,
    seed: Redacted.value(device.signingSeed),
    createdSeconds: Math.floor(Date.now() / 1_000),
    nonce: encodeBase32(randomBytes(16))
  })
  return { headers: { ...signed }, body }
}

/** A poll as the device sends it, head and body. */
export const signedPoll = (device: SimulatedDevice, authority: string, waitMs: number): Buffer => {
  const { body, headers: signed } = pollParts(device, authority, waitMs)
  const headers = { host: authority, ...signed, "content-length": String(body.length) }
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  return Buffer.concat([Buffer.from(`POST ${pollPath} HTTP/1.1\r\n${lines.join("")}\r\n`), body])
}

/** A server that would put its own keys into the operator's device book, under cover of a pre-authorisation. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Result } from "effect"
import type { NodeKeyRing } from "../../src/adapters/NodeKeys.ts"
import { deviceRecord, writeDeviceRecord } from "../../src/adapters/operator/DeviceBook.ts"
import { ManagementClient } from "../../src/adapters/operator/ManagementClient.ts"
import { OperatorHome, OperatorHomeAt, writeJson } from "../../src/adapters/operator/OperatorHome.ts"
import { keyFileBytes, profileOf } from "../../src/adapters/operator/OperatorKeys.ts"
import {
  type DeviceRecord,
  OperatorProfile,
  operatorFile,
  operatorKeyFile
} from "../../src/adapters/operator/Records.ts"
import { keepRoot } from "../../src/adapters/operator/TrustStore.ts"
import { SystemEntropy } from "../../src/adapters/SystemEntropy.ts"
import { invitationId, proveInvitation } from "../../src/crypto/Invitations.ts"
import { verifyAdmission } from "../../src/crypto/Trust.ts"
import { CryptoEngine } from "../../src/ports/CryptoEngine.ts"
import { turnAway } from "../../src/programs/cli/Admission.ts"
import { takeDecisions } from "../../src/programs/cli/Colleagues.ts"
import { Screen } from "../../src/programs/cli/Screen.ts"
import type { DsseEnvelope } from "../../src/schemas/Dsse.ts"
import type { Preauthorisation } from "../../src/schemas/Enrolment.ts"
import type { DeviceId, Name, ServerId } from "../../src/schemas/Ids.ts"
import type { DeviceView } from "../../src/schemas/ManagementApi.ts"
import { admission, enrolment, statementOf } from "../support/fleet.ts"
import * as parties from "../support/operators.ts"

const { device, engine, nowMs, otherDevice, server, trust } = parties
const secret = "s".repeat(32)
const id = device.id as DeviceId

const preauthorisation = (changes: Partial<Preauthorisation> = {}) =>
  parties.signAsOperator("preauthorisation", {
    type: "postern/preauthorisation/v1",
    subject: invitationId(engine, secret),
    name: "pi-cellar" as Name,
    server: server.id as ServerId,
    root_digest: trust.digest,
    root_version: 1,
    issued_at_ms: nowMs,
    expires_at_ms: nowMs + 86_400_000,
    ...changes
  } satisfies Preauthorisation).envelope

const enrolledWith = (by: NodeKeyRing, text: string | null) => {
  const bound = { device: by.id as DeviceId, server: server.id as ServerId, rootDigest: trust.digest }
  return enrolment(nowMs, by, { invitation: text === null ? null : proveInvitation(engine, text, bound) })
    .envelope
}

/** What the server shows of a device it let in beforehand. */
const shown = (changes: Partial<DeviceView> = {}): DeviceView => ({
  device: id,
  status: "accepted",
  name: "pi-cellar" as Name,
  enrolment: enrolledWith(device, secret),
  admission: null,
  preauthorisation: preauthorisation(),
  statement: statementOf(),
  enrolled_at_ms: nowMs,
  last_seen_at_ms: nowMs,
  online: true,
  incarnation: parties.incarnation,
  high_water: null,
  blocked: null,
  degraded: [],
  last_receipt: 0,
  root_version: 1,
  ...changes
})

const silent: Screen["Service"] = {
  outIsTerminal: false,
  errIsTerminal: false,
  canAsk: false,
  color: false,
  columns: () => 80,
  write: () => Effect.void,
  failure: () => undefined
}

/** What stands in the book, and what alarms there were, after the server showed this. */
const afterwards = (views: ReadonlyArray<DeviceView>, book: ReadonlyArray<DeviceRecord> = []) =>
  Effect.acquireUseRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "postern-book-"))),
    (folder) =>
      Effect.gen(function* () {
        yield* keepRoot(1, trust.envelope)
        for (const record of book) yield* writeDeviceRecord(record)
        const alarms = [...(yield* takeDecisions(views)).values()].flat().join()
        return { alarms, record: yield* deviceRecord((views.at(-1) as DeviceView).device) }
      }).pipe(
        Effect.provide(
          Layer.mergeAll(
            OperatorHomeAt(folder),
            Layer.succeed(CryptoEngine, engine),
            Layer.succeed(Screen, silent)
          )
        )
      ),
    (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
  )

describe("the device book", () => {
  it.effect("takes in who proves the invitation, with the keys the device itself named", () =>
    Effect.gen(function* () {
      const { alarms, record } = yield* afterwards([shown()])
      assert.strictEqual(alarms, "")
      assert.deepInclude(record, {
        name: "pi-cellar" as Name,
        status: "accepted",
        signing_key: device.signingKey,
        recipient: device.recipient,
        admission_sequence: 0
      })
    })
  )
  const other = otherDevice.id as DeviceId
  const stolen = { device: other, enrolment: enrolledWith(otherDevice, null) }
  const cases = [
    ["a device without the proof", shown(stolen), /for another device/],
    [
      "one with the proof of another invitation",
      shown({ device: other, enrolment: enrolledWith(otherDevice, "t".repeat(32)) }),
      /for another device/
    ],
    [
      "the enrolment of another device",
      shown({ enrolment: enrolledWith(otherDevice, secret) }),
      /for another device/
    ],
    [
      "an enrolment that was changed",
      shown({ enrolment: { ...enrolledWith(device, secret), signatures: [] } }),
      /does not hold/
    ],
    [
      "a pre-authorisation nobody signed",
      shown({ preauthorisation: { ...preauthorisation(), signatures: [] } }),
      /no operator of your root/
    ],
    [
      "one for another fleet",
      shown({ preauthorisation: preauthorisation({ root_digest: parties.someDigest("1") }) }),
      /another fleet/
    ]
  ] as const
  it.effect.each(cases.map(([what, view, alarm]) => ({ what, view, alarm })))(
    "does not take in $what",
    ({ alarm, view }) =>
      Effect.gen(function* () {
        const after = yield* afterwards([view])
        assert.isUndefined(after.record)
        assert.match(after.alarms, alarm)
      })
  )
  it.effect("takes in one device for an invitation, and none under a name that is taken", () =>
    Effect.gen(function* () {
      const twin = shown({ device: other, enrolment: enrolledWith(otherDevice, secret) })
      assert.match((yield* afterwards([shown(), twin])).alarms, /came in by the same invitation before/)
      const taken = yield* afterwards([twin], [parties.deviceRecord])
      assert.match(taken.alarms, /another device called pi-cellar/)
      assert.isUndefined(taken.record)
    })
  )
})

describe("what another operator decided about a device of the book", () => {
  const known: DeviceRecord = {
    ...parties.deviceRecord,
    device: id,
    name: "pi-cellar" as Name,
    last_receipt: { number: 9, digest: parties.someDigest("9") },
    last_word: { at_ms: nowMs, incarnation: parties.incarnation, high_water: null, last_receipt: 9 }
  }
  const decided = (changes: Parameters<typeof admission>[1]) =>
    shown({
      preauthorisation: null,
      admission: admission(nowMs + 60_000, { name: known.name, sequence: 7, ...changes }).envelope
    })

  it.effect("does not accuse a device whose ledger was set back, once it was accepted again", () =>
    Effect.gen(function* () {
      const { alarms, record } = yield* afterwards([decided({})], [known])
      assert.strictEqual(alarms, "", "its word says less than before, and may")
      assert.deepInclude(record, {
        admission_sequence: 7,
        last_receipt: null,
        chain_open: true,
        anew_at_ms: nowMs + 60_000
      })
    })
  )
  it.effect("leaves its chain of receipts alone where it only gives another name", () =>
    Effect.gen(function* () {
      const { record } = yield* afterwards([decided({ name: "pi-roof" as Name })], [known])
      assert.deepInclude(record, { name: "pi-roof" as Name, last_receipt: known.last_receipt })
      assert.isUndefined(record?.chain_open)
    })
  )
})

describe("the number of an operator's decision", () => {
  it.effect("follows from what operators signed, not from what a server shows", () =>
    Effect.acquireUseRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "postern-number-"))),
      (folder) => {
        const sent: Array<DsseEnvelope> = []
        const api = {
          devices: {
            admit: ({ payload }: { readonly payload: DsseEnvelope }) => Effect.sync(() => sent.push(payload))
          }
        }
        const client = Layer.succeed(ManagementClient, {
          address: "http://127.0.0.1:8470",
          call: (_what, use) => use(api as never) as never
        })
        const highest = admission(nowMs, { sequence: Number.MAX_SAFE_INTEGER - 1 }).envelope
        const numbers = Effect.gen(function* () {
          const home = yield* OperatorHome
          yield* writeJson(operatorFile, OperatorProfile, profileOf(parties.operator))
          yield* home.createBytes(operatorKeyFile, yield* keyFileBytes(parties.operator.stored, null))
          yield* keepRoot(1, trust.envelope)
          yield* writeDeviceRecord({ ...parties.deviceRecord, device: id })
          for (const envelope of [
            { ...highest, signatures: [] },
            admission(nowMs, { sequence: 40 }).envelope
          ])
            yield* turnAway(shown({ admission: envelope }), "revoke")
          return sent.map((envelope) => {
            const verified = verifyAdmission(engine, trust.root, envelope)
            if (Result.isFailure(verified)) throw verified.failure
            return verified.success.document.sequence
          })
        })
        return Effect.provide(
          Effect.map(numbers, (found) =>
            assert.deepStrictEqual(found, [parties.deviceRecord.admission_sequence + 1, 41])
          ),
          Layer.mergeAll(
            OperatorHomeAt(folder),
            client,
            SystemEntropy,
            Layer.succeed(CryptoEngine, engine),
            Layer.succeed(Screen, silent)
          )
        )
      },
      (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
    )
  )
})

/** A server that would put its own keys into the operator's device book, under cover of a pre-authorisation. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import type { NodeKeyRing } from "../../src/adapters/NodeKeys.ts"
import { deviceRecord, writeDeviceRecord } from "../../src/adapters/operator/DeviceBook.ts"
import { OperatorHomeAt } from "../../src/adapters/operator/OperatorHome.ts"
import type { DeviceRecord } from "../../src/adapters/operator/Records.ts"
import { keepRoot } from "../../src/adapters/operator/TrustStore.ts"
import { invitationId, proveInvitation } from "../../src/crypto/Invitations.ts"
import { CryptoEngine } from "../../src/ports/CryptoEngine.ts"
import { takeDecisions } from "../../src/programs/cli/Colleagues.ts"
import { Screen } from "../../src/programs/cli/Screen.ts"
import type { Preauthorisation } from "../../src/schemas/Enrolment.ts"
import type { DeviceId, Name, ServerId } from "../../src/schemas/Ids.ts"
import type { DeviceView } from "../../src/schemas/ManagementApi.ts"
import { enrolment, statementOf } from "../support/fleet.ts"
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

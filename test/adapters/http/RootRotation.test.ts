/** The server and the versions of its trust root: what it publishes, whom it refuses, who lags behind, what it warns of. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber, Logger, Redacted, Result } from "effect"
import { TestClock } from "effect/testing"
import { DeviceKey, RegistrarKey } from "../../../src/actors/ServerKeys.ts"
import { hashToken } from "../../../src/adapters/http/ManagementAccess.ts"
import { cardOf, signerOf } from "../../../src/adapters/operator/OperatorKeys.ts"
import { utf8 } from "../../../src/crypto/Bytes.ts"
import { signDocument } from "../../../src/crypto/Documents.ts"
import { readKeyCard } from "../../../src/crypto/KeyCards.ts"
import {
  addKey,
  nextRoot,
  type RootEdit,
  removeServer,
  revokeOperator
} from "../../../src/crypto/RootEdits.ts"
import { CryptoEngine } from "../../../src/ports/CryptoEngine.ts"
import type { DsseEnvelope } from "../../../src/schemas/Dsse.ts"
import type { DeviceId, Name, ServerId } from "../../../src/schemas/Ids.ts"
import type { LaggardPage } from "../../../src/schemas/ManagementApi.ts"
import type { TrustRoot } from "../../../src/schemas/TrustRoot.ts"
import {
  accept,
  acceptedFleet,
  admission,
  type Fleet,
  manage,
  pollBody,
  putPayload,
  rootedFleet,
  send,
  submit
} from "../../support/fleet.ts"
import {
  device,
  engine,
  nowMs,
  operator,
  otherDevice,
  recovery,
  server,
  signAsOperator,
  signedOrder,
  stranger,
  trust
} from "../../support/operators.ts"

const day = 86_400_000

const colleague = Effect.runSync(
  Effect.map(Effect.provideService(cardOf(stranger), CryptoEngine, engine), (word) =>
    Result.getOrThrow(readKeyCard(engine, word))
  )
)

/** The root after another one, signed by the recovery key. */
const rootAfter = (
  current: TrustRoot,
  edits: ReadonlyArray<RootEdit>,
  expiresAtMs = nowMs + 400 * day
): { readonly root: TrustRoot; readonly envelope: DsseEnvelope } => {
  const root = Result.getOrThrow(nextRoot(engine, current, edits, { nowMs, expiresAtMs }))
  return { root, ...signDocument(engine, "root", root, [signerOf(recovery)]) }
}

/** The stranger takes the operator's place. */
const second = rootAfter(trust.root, [addKey(colleague, ["operators"]), revokeOperator("operator")])

const publish = (fleet: Fleet, envelope: DsseEnvelope) =>
  fleet.system.ref(RegistrarKey).ask("PublishRoot", { envelope, actor: "alice" })

const submitAs = Effect.fnUntraced(function* (fleet: Fleet, counter: number, by: typeof operator) {
  const payload = yield* putPayload(fleet, utf8(`payload ${counter}`))
  const { envelope } = signedOrder(counter, { payload }, by)
  return yield* fleet.system.refOf(DeviceKey, device.id).ask("Submit", { envelope, actor: "alice" })
})

describe("a new root on the server", () => {
  it.effect("is refused where it does not come from the last one, or does not name this server", () =>
    Effect.gen(function* () {
      const fleet = yield* rootedFleet
      const unsigned = signDocument(engine, "root", second.root, [signerOf(stranger)]).envelope
      assert.include((yield* Effect.flip(publish(fleet, unsigned))).message, "unknown_key")
      const third = rootAfter(second.root, [])
      assert.include(
        (yield* Effect.flip(publish(fleet, third.envelope))).message,
        "version 3 where 2 comes next"
      )
      const other = "srv_" + "a".repeat(52)
      const elsewhere = {
        ...second.root,
        servers: second.root.servers.map((entry) => ({ ...entry, id: other as ServerId }))
      }
      const moved = signDocument(engine, "root", elsewhere, [signerOf(recovery)]).envelope
      const refusal = yield* Effect.flip(publish(fleet, moved))
      assert.include(refusal.message, `does not name this server (${server.id}) with its own keys`)
      yield* publish(fleet, second.envelope)
      yield* publish(fleet, second.envelope)
      assert.strictEqual((yield* fleet.store.roots(1, 16)).length, 2)
      assert.isTrue(
        Result.isFailure(
          nextRoot(engine, second.root, [removeServer(server.id)], { nowMs, expiresAtMs: nowMs + day })
        )
      )
    })
  )

  it.effect("ends every held poll at once; a device that has not got it yet may wait again", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      const held = yield* Effect.forkChild(
        send(fleet, "POST", "/poll", { body: pollBody({ wait_ms: 30_000 }) })
      )
      yield* TestClock.adjust(1_000)
      assert.isUndefined(held.pollUnsafe())
      yield* publish(fleet, second.envelope)
      yield* TestClock.adjust(0)
      assert.strictEqual((yield* Fiber.join(held)).status, 200)
      const again = yield* Effect.forkChild(
        send(fleet, "POST", "/poll", { body: pollBody({ turn: 1, wait_ms: 30_000 }) })
      )
      yield* TestClock.adjust(1_000)
      assert.isUndefined(again.pollUnsafe())
      yield* Fiber.interrupt(again)
    })
  )

  it.effect("is told at once to a device that comes with an older one", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      yield* publish(fleet, second.envelope)
      const reply = yield* Effect.forkChild(
        send(fleet, "POST", "/poll", { body: pollBody({ wait_ms: 30_000 }) })
      )
      yield* TestClock.adjust(0)
      assert.strictEqual((yield* Fiber.join(reply)).status, 200)
    })
  )

  it.effect("shows who lags behind it, the longest unseen first, until they have come with it", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      yield* accept(fleet, otherDevice, "pi-attic")
      const hash = hashToken(engine, Redacted.make(`postern-token-v1.${"v".repeat(52)}`))
      yield* fleet.store.addToken("v", "viewer", hash, yield* Clock.currentTimeMillis)
      const laggards = Effect.map(
        manage(
          fleet,
          `postern-token-v1.${"v".repeat(52)}`,
          "GET",
          "/api/management/v1/roots/laggards?limit=1"
        ),
        ({ json }) => json as LaggardPage
      )
      const come = (by: typeof device, rootVersion: number) =>
        send(fleet, "POST", "/poll", { body: pollBody({ root_version: rootVersion }), by })
      yield* come(device, 1)
      yield* TestClock.adjust(2_000)
      yield* come(otherDevice, 1)
      assert.deepInclude(yield* laggards, { root_version: 1, count: 0, devices: [] })
      yield* publish(fleet, second.envelope)
      const both = yield* laggards
      assert.strictEqual(both.count, 2)
      assert.deepEqual(
        both.devices.map(({ name, root_version }) => [name, root_version]),
        [["pi-cellar" as Name, 1]]
      )
      yield* TestClock.adjust(2_000)
      yield* come(device, 2)
      assert.deepEqual(
        (yield* laggards).devices.map(({ name }) => name),
        ["pi-attic" as Name]
      )
      assert.strictEqual((yield* laggards).count, 1)
    })
  )
})

describe("an operator whom the newest root revoked", () => {
  it.effect("is refused by name: orders, cancels and decisions; who came instead is not", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      const { order } = yield* submit(fleet, 1)
      yield* publish(fleet, second.envelope)
      const refused = yield* Effect.flip(submitAs(fleet, 2, operator))
      assert.deepInclude(refused, { _tag: "Conflict", code: "operator_revoked" })
      assert.include(refused.message, operator.keyId)
      const cancel = signAsOperator("cancel", {
        type: "postern/cancel/v1",
        order: order.id,
        device: device.id,
        root_version: 1,
        issued_at_ms: nowMs,
        expires_at_ms: nowMs + day
      }).envelope
      const registrar = fleet.system.ref(RegistrarKey)
      const actor = fleet.system.refOf(DeviceKey, device.id)
      assert.deepInclude(
        yield* Effect.flip(actor.ask("Cancel", { order: order.id, envelope: cancel, actor: "alice" })),
        { _tag: "Conflict", code: "operator_revoked" }
      )
      const decision = admission(nowMs, { sequence: 2 }).envelope
      const admit = { device: device.id as DeviceId, envelope: decision, actor: "alice" }
      assert.deepInclude(yield* Effect.flip(registrar.ask("Admit", admit)), {
        _tag: "Conflict",
        code: "operator_revoked"
      })
      // Somebody who never was one is another matter.
      assert.deepInclude(yield* Effect.flip(submitAs(fleet, 2, recovery)), { _tag: "Refused" })
      yield* submitAs(fleet, 2, stranger)
      // What was queued before stays queued: the device refuses it, and signs that it did.
      assert.strictEqual((yield* fleet.store.job(order.id))?.state, "queued")
    })
  )

  it.effect("is refused until a later root makes them an operator again", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      yield* publish(fleet, second.envelope)
      const card = Result.getOrThrow(
        readKeyCard(engine, yield* Effect.provideService(cardOf(operator), CryptoEngine, engine))
      )
      const third = rootAfter(second.root, [addKey(card, ["operators"])])
      assert.deepInclude(yield* Effect.flip(submitAs(fleet, 1, operator)), { code: "operator_revoked" })
      yield* publish(fleet, third.envelope)
      yield* submitAs(fleet, 1, operator)
    })
  )
})

describe("an expired root on the server", () => {
  it.effect("lets nobody order or let in, but cancel, turn away and renew", () =>
    Effect.gen(function* () {
      const fleet = yield* acceptedFleet
      const { order } = yield* submit(fleet, 1)
      const short = rootAfter(trust.root, [], nowMs + day / 24)
      yield* publish(fleet, short.envelope)
      yield* TestClock.setTime(nowMs + day / 24)
      assert.deepInclude(yield* Effect.flip(submitAs(fleet, 2, operator)), {
        _tag: "Conflict",
        code: "root_expired"
      })
      const registrar = fleet.system.ref(RegistrarKey)
      const decide = (decision: "accept" | "revoke", sequence: number) =>
        registrar.ask("Admit", {
          device: device.id as DeviceId,
          envelope: admission(nowMs, { decision, sequence }).envelope,
          actor: "alice"
        })
      assert.deepInclude(yield* Effect.flip(decide("accept", 2)), { _tag: "Conflict", code: "root_expired" })
      const cancel = signAsOperator("cancel", {
        type: "postern/cancel/v1",
        order: order.id,
        device: device.id,
        root_version: 1,
        issued_at_ms: nowMs,
        expires_at_ms: nowMs + 100 * day
      }).envelope
      yield* fleet.system
        .refOf(DeviceKey, device.id)
        .ask("Cancel", { order: order.id, envelope: cancel, actor: "alice" })
      yield* decide("revoke", 3)
      yield* publish(fleet, rootAfter(short.root, [], nowMs + 800 * day).envelope)
      yield* decide("accept", 4)
    })
  )

  it.effect("is announced in the log 90, 30 and 7 days ahead and afterwards, each once a day", () => {
    const said: Array<string> = []
    const listener = Logger.make(({ message }) => {
      const text = String(message)
      if (text.startsWith("The trust root")) said.push(text.replace(/^.*UTC\) /, ""))
    })
    return Effect.gen(function* () {
      const fleet = yield* rootedFleet
      yield* TestClock.adjust(10_000)
      assert.deepEqual(said, [])
      let root = trust.root
      for (const days of [89, 29, 6, 0.1]) {
        const next = rootAfter(root, [], (yield* Clock.currentTimeMillis) + days * day)
        root = next.root
        yield* publish(fleet, next.envelope)
        yield* TestClock.adjust(day / 4)
      }
      assert.strictEqual(said.length, 4)
      yield* TestClock.adjust(day / 4)
      assert.strictEqual(said.length, 4)
      assert.match(
        said.join("\n"),
        /^expires within three months\.\nexpires within a month.*\nexpires within a week.*\nhas EXPIRED/
      )
    }).pipe(Effect.provide(Logger.layer([listener])))
  })
})

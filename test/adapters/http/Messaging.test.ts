import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Schema } from "effect"
import type { ServerMessaging } from "../../../src/adapters/http/DeviceApi.ts"
import { brokerServicesOf } from "../../../src/crypto/Trust.ts"
import { deviceApiPath } from "../../../src/schemas/DeviceApi.ts"
import { ServerIdentity } from "../../../src/schemas/Enrolment.ts"
import type { DeviceId } from "../../../src/schemas/Ids.ts"
import { MessagingOffer, mqttPath } from "../../../src/schemas/MessagingOffer.ts"
import {
  accept,
  admission,
  enrolment,
  exchange,
  type Fleet,
  registrarOf,
  rootedFleet,
  rootedFleetWith,
  send
} from "../../support/fleet.ts"
import { device, engine, nowMs, otherDevice, server, signAs } from "../../support/operators.ts"

const word = signAs(server, "broker_services", {
  type: "postern/broker-services/v1",
  server: server.id,
  signing_key: device.signingKey
}).envelope

/** Offers with a password that names the device. */
const messaging: ServerMessaging = {
  services: word,
  offer: (id) =>
    Effect.succeed({
      type: "postern/messaging-offer/v1",
      topic_root: "mf2c",
      brokers: [{ url: mqttPath, mqtt: 4, ca: null }],
      password: `of ${id}`
    }),
  upgrade: { path: mqttPath, maximum: 1, take: () => false }
}

const offer = (fleet: Fleet, by = device) => send(fleet, "GET", "/messaging", { by })

const plain = (fleet: Fleet, path: string) =>
  exchange(fleet.device, {
    method: "GET",
    authority: "127.0.0.1:8470",
    path: `${deviceApiPath}${path}`,
    query: "",
    headers: {},
    body: new Uint8Array(0)
  })

describe("messaging, as the device API tells of it", () => {
  it.effect("is offered to accepted devices, each its own way, and to nobody else", () =>
    Effect.gen(function* () {
      const fleet = yield* rootedFleetWith(messaging)
      assert.strictEqual((yield* offer(fleet)).code, "unknown_device")
      yield* accept(fleet)
      const reply = yield* offer(fleet)
      assert.isTrue(reply.signed)
      const taken = yield* Schema.decodeUnknownEffect(MessagingOffer)(reply.json)
      assert.strictEqual(taken.password, `of ${device.id}`)
      const { envelope } = enrolment(nowMs, otherDevice)
      yield* send(fleet, "POST", "/enrolment", { by: otherDevice, body: envelope })
      assert.strictEqual((yield* offer(fleet, otherDevice)).code, "not_accepted")
      assert.strictEqual((yield* plain(fleet, "/messaging")).status, 401)
      const revoke = admission(nowMs, { decision: "revoke", sequence: 2 })
      yield* registrarOf(fleet).ask("Admit", {
        device: device.id as DeviceId,
        envelope: revoke.envelope,
        actor: "alice"
      })
      assert.strictEqual((yield* offer(fleet)).code, "revoked")
    })
  )

  it.effect("is not offered by a server that has none, which says so", () =>
    Effect.gen(function* () {
      const fleet = yield* rootedFleet
      yield* accept(fleet)
      const reply = yield* offer(fleet)
      assert.deepInclude(reply, { status: 404, code: "no_messaging", signed: true })
      const identity = yield* Schema.decodeUnknownEffect(ServerIdentity)(
        (yield* plain(fleet, "/identity")).json
      )
      assert.isUndefined(identity.broker_services)
    })
  )

  it.effect("names the key of broker services in the server's identity, on the server's word", () =>
    Effect.gen(function* () {
      const fleet = yield* rootedFleetWith(messaging)
      const identity = yield* Schema.decodeUnknownEffect(ServerIdentity)(
        (yield* plain(fleet, "/identity")).json
      )
      assert.deepStrictEqual(brokerServicesOf(engine, identity), Result.succeed(device.signingKey))
    })
  )

  it.effect("asks for a WebSocket where a proxy has taken that wish out of the request", () =>
    Effect.gen(function* () {
      const fleet = yield* rootedFleetWith(messaging)
      const reply = yield* plain(fleet, "/mqtt")
      assert.strictEqual(reply.status, 426)
      assert.strictEqual(reply.headers["upgrade"], "websocket")
      for (const none of [null, { ...messaging, upgrade: null }]) {
        const without = yield* plain(yield* rootedFleetWith(none), "/mqtt")
        assert.deepInclude(without, { status: 404, code: "no_messaging" })
      }
    })
  )
})

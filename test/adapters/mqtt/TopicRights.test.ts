/** The table of rights, row by row, as both brokers hold it: what is allowed, and what is next to it. */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import type { MqttClient } from "mqtt"
import { type BareBroker, bareKinds, clientOf, root } from "../../support/bareBroker.ts"
import { withFolder } from "../../support/messaging.ts"
import { waitUntil } from "../../support/Program.ts"
import { describeWith } from "../../support/requires.ts"

/** What alice may write, topic by topic. */
const writes: Readonly<Record<string, boolean>> = {
  // Her own public topics, and nothing else of her own.
  "alice/public": true,
  "alice/public/pingreq": true,
  "alice/public/handshake": true,
  "alice/public/anything/at/all": true,
  "alice/publicity": false,
  "alice/handshake": false,
  "alice/protected": false,
  "alice/private": false,
  alice: false,
  // Anybody's public inbox, questions and answers.
  "bob/public": true,
  "bob/public/pingreq": true,
  "bob/public/pingack": true,
  "bob/public/handshake": false,
  "bob/public/anything": false,
  "bob/public/pingreq/deeper": false,
  "bob/handshake": false,
  "bob/protected": false,
  "bob/private": false,
  // Four inboxes of broker services.
  "broker-services/handshake": true,
  "broker-services/status": true,
  "broker-services/protected": true,
  "broker-services/private": true,
  "broker-services/discovery": false,
  "broker-services/public/handshake": false,
  "broker-services/handshake/deeper": false,
  "broker-services/privately": false,
  "broker-services": false
}

/** What alice may subscribe to. */
const reads: Readonly<Record<string, boolean>> = {
  "alice/#": true,
  "alice/private": true,
  "alice/handshake": true,
  "+/public/#": true,
  "bob/public": true,
  "bob/public/handshake": true,
  "bob/public/#": true,
  "broker-services/discovery": true,
  "broker-services/public/#": true,
  "bob/#": false,
  "bob/+": false,
  "bob/handshake": false,
  "bob/protected": false,
  "bob/private": false,
  "+/private": false,
  "+/#": false,
  "#": false,
  "broker-services/#": false,
  "broker-services/handshake": false,
  "broker-services/status": false,
  "broker-services/protected": false,
  "broker-services/private": false,
  "broker-services/discovery/#": false
}

/** What lies outside the root. */
const elsewhere = ["mf2", "other/alice/public", "$SYS/broker/uptime", "$CONTROL/dynamic-security/v1"]

/** Sends something to each topic, and gives those by which it came through. */
const carried = (bare: BareBroker, alice: MqttClient, topics: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    if (bare.mosquitto === null) {
      const through: Array<string> = []
      for (const topic of topics) {
        const before = bare.told.refused.length
        yield* Effect.promise(() => alice.publishAsync(topic, topic, { qos: 1 }))
        if (bare.told.refused.length === before) through.push(topic)
      }
      return through
    }
    const observer = yield* clientOf(bare.mosquitto.address, {
      clientId: "observer",
      username: "broker-services",
      password: bare.mosquitto.password
    })
    const through: Array<string> = []
    observer.on("message", (topic) => void through.push(topic))
    yield* Effect.promise(() => observer.subscribeAsync(`${root}/#`, { qos: 1 }))
    const end = `${root}/alice/public/end`
    for (const topic of [...topics, end])
      yield* Effect.promise(() => alice.publishAsync(topic, topic, { qos: 1 }).catch(() => undefined))
    yield* Effect.promise(() => waitUntil("the last one", () => through.includes(end)))
    return through.filter((topic) => topic !== end)
  })

for (const kind of bareKinds)
  describeWith(kind.parts, `rights at ${kind.name}`, () => {
    it.live("to write", () =>
      withFolder((path) =>
        Effect.gen(function* () {
          const bare = yield* kind.open(path)
          const alice = yield* bare.client("alice")
          const topics = [...Object.keys(writes).map((topic) => `${root}/${topic}`), ...elsewhere]
          const allowed = Object.keys(writes).filter((topic) => writes[topic])
          const through = yield* carried(bare, alice, topics)
          assert.deepStrictEqual([...through].sort(), allowed.map((topic) => `${root}/${topic}`).sort())
          assert.isTrue(alice.connected, "who writes what may not be written is not cut off")
        })
      )
    )

    it.live("to read", () =>
      withFolder((path) =>
        Effect.gen(function* () {
          const bare = yield* kind.open(path)
          const alice = yield* bare.client("alice")
          const filters = [
            ...Object.entries(reads).map(([filter, may]) => [`${root}/${filter}`, may] as const),
            ["#", false] as const,
            ["$SYS/#", false] as const,
            ["$CONTROL/#", false] as const,
            [`$share/of-alice/${root}/alice/#`, false] as const,
            [`$share/of-alice/${root}/broker-services/private`, false] as const,
            ...elsewhere.map((filter) => [filter, false] as const)
          ]
          for (const [filter, may] of filters) {
            const granted = yield* Effect.promise(() =>
              alice.subscribeAsync(filter, { qos: 1 }).then(
                ([grant]) => grant !== undefined && grant.qos < 0x80,
                () => false
              )
            )
            assert.strictEqual(granted, may, filter)
          }
        })
      )
    )
  })

/** A real tor without a network: what it is told of the services, and what it is never told. */
import { mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { NativeCrypto } from "../../../src/adapters/NativeCrypto.ts"
import {
  commandPublisher,
  folderPublisher,
  type WantedService
} from "../../../src/adapters/tor/OnionPublishing.ts"
import { type TorControl, TorControlError, torInfo } from "../../../src/adapters/tor/TorControl.ts"
import { openTor } from "../../../src/adapters/tor/TorNode.ts"
import { encodeBase64 } from "../../../src/crypto/Base64.ts"
import { onionServiceKey } from "../../../src/crypto/OnionAddress.ts"
import { OnionClientKey } from "../../../src/schemas/Onion.ts"
import type { OnionServiceName } from "../../../src/schemas/OnionStatus.ts"
import { onionConfig } from "../../support/onions.ts"
import { describeWith } from "../../support/requires.ts"

const seed = Redacted.make(new Uint8Array(32).fill(7))
const nobody = OnionClientKey.make("N2NU7BSRL6YODZCYPN4CREB54TYLKGIE2KYOQWLFYC23ZJVCE5DQ")
const wanted = (
  service: OnionServiceName,
  more: Partial<Pick<WantedService, "clients" | "door">> = {}
): WantedService => ({
  service,
  key: onionServiceKey(NativeCrypto, seed, service),
  clients: service === "device" ? new Set([nobody]) : null,
  door: "unix:/tmp/a folder/door.sock",
  ...more
})

const openedIn = Effect.fnUntraced(function* (name: string) {
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), name))),
    (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
  )
  const { control } = yield* openTor({
    folder: join(folder, "tor"),
    settings: onionConfig({ options: ["DisableNetwork 1"] }),
    proxy: null,
    socks: false,
    lines: []
  })
  assert.isNotNull(control)
  return { control: control as TorControl, folder: join(folder, "services") }
})
const opened = openedIn("onion tor-")

describeWith(["tor"], "a tor of our own", () => {
  it.live("has exactly the services that are wanted, with their defences", () =>
    Effect.gen(function* () {
      const { control, folder } = yield* opened
      const { holds, publish } = folderPublisher(control, folder)
      const both = [wanted("device"), wanted("enrol")]
      yield* publish(both)
      assert.isTrue(yield* holds(both))
      const text = yield* torInfo(control, "config-text")
      assert.strictEqual(text.match(/^HiddenServiceDir /gm)?.length, 2)
      for (const line of [
        "HiddenServicePoWDefensesEnabled 1",
        "HiddenServiceEnableIntroDoSDefense 1",
        "HiddenServiceMaxStreamsCloseCircuit 1"
      ])
        assert.strictEqual(text.split("\n").filter((each) => each === line).length, 2, line)
      assert.include(text, "HiddenServiceMaxStreams 16")
      assert.include(text, "HiddenServiceMaxStreams 64")

      yield* publish([wanted("device")])
      assert.isFalse(yield* holds(both))
      assert.isTrue(yield* holds([wanted("device")]))
      yield* publish([])
      assert.notInclude(yield* torInfo(control, "config-text"), "HiddenServiceDir ")
      assert.isTrue(yield* holds([]))
    }).pipe(Effect.scoped)
  )

  it.live.each(["jürgen", "it's #1", 'quo"te', "back\\slash", "žluťoučký 🐴"])(
    "has them in the folder %s",
    (name) =>
      Effect.gen(function* () {
        const { control, folder } = yield* openedIn(name)
        const { holds, publish } = folderPublisher(control, folder)
        const both = [wanted("device"), wanted("enrol")]
        yield* publish(both)
        assert.isTrue(yield* holds(both))
        assert.isFalse(yield* holds([wanted("device")]))
      }).pipe(Effect.scoped)
  )

  it.live("knows nothing of them any more after a reload, which is noticed, and so is a changed list", () =>
    Effect.gen(function* () {
      const { control, folder } = yield* opened
      const { holds, publish } = folderPublisher(control, folder)
      const device = [wanted("device")]
      yield* publish(device)
      yield* control.send("SIGNAL RELOAD")
      assert.notInclude(yield* torInfo(control, "config-text"), "HiddenServiceDir ")
      assert.isFalse(yield* holds(device))
      yield* publish(device)
      assert.isTrue(yield* holds(device))
      rmSync(join(folder, "device", "authorized_clients"), { recursive: true })
      assert.isFalse(yield* holds(device))
      assert.strictEqual(readdirSync(join(folder, "device", "authorized_clients")).length, 1)
    }).pipe(Effect.scoped)
  )

  it.live("is told of no service whose list could not be written", () =>
    Effect.gen(function* () {
      const { control, folder } = yield* opened
      const { publish } = folderPublisher(control, folder)
      const error = yield* Effect.flip(publish([wanted("device", { clients: new Set() })]))
      assert.include(error.message, "open the service to all")
      assert.notInclude(yield* torInfo(control, "config-text"), "HiddenServiceDir ")
    }).pipe(Effect.scoped)
  )
})

const refusedBy = (status: number, reason: string) =>
  new TorControlError({ code: "refused", command: "ADD_ONION", status, reason })

/** A tor that is played: it has the services it is told of, and carries out also what it answers too late. */
const played = (refusal: (command: string) => TorControlError | null = () => null) => {
  const sent: Array<string> = []
  const services = new Map<string, number>()
  const names = new Map(
    (["device", "enrol"] as const).map((service) => {
      const { expanded, host } = wanted(service).key
      return [encodeBase64(Redacted.value(expanded)), host.slice(0, 56)]
    })
  )
  let late: string | null = null
  const run = (word: string, command: string): TorControlError | ReadonlyArray<string> => {
    const refused = refusal(command)
    if (refused !== null) return refused
    if (word === "GETINFO") return [`onions/current=${[...services.keys()].join("\n")}`, "OK"]
    if (word === "DEL_ONION")
      return services.delete(command.slice(word.length + 1))
        ? ["OK"]
        : refusedBy(552, "Unknown Onion Service id")
    const id = names.get(/ED25519-V3:(\S+)/.exec(command)?.[1] ?? "") ?? ""
    if (services.has(id)) return refusedBy(550, "Onion address collision")
    services.set(id, command.match(/ClientAuthV3=/g)?.length ?? 0)
    return ["OK"]
  }
  const control: TorControl = {
    send: (command) =>
      Effect.suspend(() => {
        sent.push(command)
        const [word = ""] = command.split(" ")
        const answer = run(word, command)
        if (word === late) {
          late = null
          return Effect.fail(
            new TorControlError({
              code: "timed_out",
              command: word,
              status: null,
              reason: "tor did not answer"
            })
          )
        }
        return answer instanceof TorControlError ? Effect.fail(answer) : Effect.succeed(answer)
      }),
    subscribe: () => Effect.void,
    closed: Effect.never
  }
  return {
    control,
    sent,
    answerLate: (word: string): void => {
      late = word
    },
    /** How many may reach each service that there is. */
    clients: () => [...services.values()]
  }
}

describeWith(["tor"], "a tor that runs already", () => {
  const door = "http://127.0.0.1:8471"

  it.live("gets keys and clients in commands, and forgets them with the connection", () =>
    Effect.gen(function* () {
      const { control } = yield* opened
      const { holds, publish } = commandPublisher(control)
      const device = wanted("device", { door })
      const ids = torInfo(control, "onions/current")
      yield* publish([device, wanted("enrol", { door })])
      assert.isTrue(yield* holds([device, wanted("enrol", { door })]))
      assert.include(yield* ids, device.key.host.slice(0, 56))
      yield* publish([device])
      assert.strictEqual(yield* ids, device.key.host.slice(0, 56))
      const another = OnionClientKey.make(nobody.replace("N2NU", "N2NV"))
      const more = wanted("device", { door, clients: new Set([nobody, another]) })
      assert.isFalse(yield* holds([more]))
      yield* publish([more])
      assert.isTrue(yield* holds([more]))
      yield* control.send(`DEL_ONION ${device.key.host.slice(0, 56)}`)
      assert.isFalse(yield* holds([more]))
    }).pipe(Effect.scoped)
  )

  it.live("takes no service for devices without clients", () =>
    Effect.gen(function* () {
      const { control } = yield* opened
      const error = yield* Effect.flip(
        commandPublisher(control).publish([wanted("device", { door, clients: new Set() })])
      )
      assert.include(error.message, "No auth clients specified")
      assert.strictEqual(yield* torInfo(control, "onions/current"), "")
    }).pipe(Effect.scoped)
  )

  it.effect("that has no proof of work is used without it", () =>
    Effect.gen(function* () {
      const { control, sent } = played((command) =>
        command.includes("PoW") ? refusedBy(512, 'Unrecognized argument "PoWDefensesEnabled=1"') : null
      )
      yield* commandPublisher(control).publish([wanted("device", { door })])
      const added = sent.filter((command) => command.startsWith("ADD_ONION"))
      assert.strictEqual(added.length, 2)
      assert.include(added[1], "V3Auth")
    })
  )

  it.effect.each(["DEL_ONION", "ADD_ONION", "GETINFO"])(
    "that answers one %s late has what is wanted after the next try",
    (late) =>
      Effect.gen(function* () {
        const tor = played()
        const { holds, publish } = commandPublisher(tor.control)
        const device = wanted("device", { door })
        yield* publish([device])
        const another = OnionClientKey.make(nobody.replace("N2NU", "N2NV"))
        const both = [
          wanted("device", { door, clients: new Set([nobody, another]) }),
          wanted("enrol", { door })
        ]
        tor.answerLate(late)
        assert.include((yield* Effect.flip(publish(both))).message, "did not answer")
        yield* publish(both)
        assert.isTrue(yield* holds(both))
        assert.deepStrictEqual(tor.clients(), [2, 0])
      })
  )

  it.effect("that added a service late, which is not wanted any more, is rid of it", () =>
    Effect.gen(function* () {
      const tor = played()
      const { holds, publish } = commandPublisher(tor.control)
      tor.answerLate("ADD_ONION")
      yield* Effect.flip(publish([wanted("enrol", { door })]))
      assert.isFalse(yield* holds([]))
      yield* publish([])
      assert.deepStrictEqual(tor.clients(), [])
      assert.isTrue(yield* holds([]))
    })
  )
})

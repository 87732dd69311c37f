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
      const sent: Array<string> = []
      const refused = new TorControlError({
        code: "refused",
        command: "ADD_ONION",
        status: 512,
        reason: 'Unrecognized argument "PoWDefensesEnabled=1"'
      })
      const control: TorControl = {
        send: (command) =>
          Effect.suspend(() => {
            sent.push(command)
            return command.includes("PoW") ? Effect.fail(refused) : Effect.succeed(["OK"])
          }),
        subscribe: () => Effect.void,
        closed: Effect.never
      }
      yield* commandPublisher(control).publish([wanted("device", { door })])
      assert.strictEqual(sent.length, 2)
      assert.include(sent[1], "V3Auth")
    })
  )
})

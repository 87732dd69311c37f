import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, beforeEach, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Redacted, Result, Schema } from "effect"
import { afterEach } from "vitest"
import { chooseDevice, deviceRecords, writeDeviceRecord } from "../../../src/adapters/operator/DeviceBook.ts"
import {
  OperatorHome,
  OperatorHomeAt,
  operatorHomeFolder,
  readJson,
  writeJson
} from "../../../src/adapters/operator/OperatorHome.ts"
import { keyFileBytes, unlockKeys } from "../../../src/adapters/operator/OperatorKeys.ts"
import { OperatorProfile, operatorFile, operatorKeyFile } from "../../../src/adapters/operator/Records.ts"
import { keepRoot, trustedRoot } from "../../../src/adapters/operator/TrustStore.ts"
import { verifyOrder } from "../../../src/crypto/Trust.ts"
import { CryptoEngine } from "../../../src/ports/CryptoEngine.ts"
import { Entropy } from "../../../src/ports/Entropy.ts"
import { Name } from "../../../src/schemas/Ids.ts"
import { seededBytes } from "../../crypto/SeededEntropy.ts"
import {
  deviceRecord,
  engine,
  nowMs,
  operator,
  otherDevice,
  signedOrder,
  stranger,
  trust
} from "../../support/operators.ts"

let parent = ""
let folder = ""

beforeEach(() => {
  parent = mkdtempSync(join(tmpdir(), "postern-home-"))
  folder = join(parent, "home")
})
afterEach(() => rmSync(parent, { recursive: true, force: true }))

const inHome = <A, E>(effect: Effect.Effect<A, E, OperatorHome | CryptoEngine | Entropy>) =>
  Effect.suspend(() =>
    effect.pipe(
      Effect.provide(OperatorHomeAt(folder)),
      Effect.provideService(CryptoEngine, engine),
      Effect.provideService(Entropy, seededBytes("home", "test"))
    )
  )

const Note = Schema.Struct({ text: Schema.String })
const modeOf = (path: string): string => (statSync(path).mode & 0o777).toString(8)

describe("where the home is", () => {
  it("the flag goes before the variable, the variable before the configuration folder", () => {
    assert.strictEqual(operatorHomeFolder("/a", { POSTERN_HOME: "/b" }), "/a")
    assert.strictEqual(operatorHomeFolder(undefined, { POSTERN_HOME: "/b" }), "/b")
    assert.strictEqual(operatorHomeFolder(undefined, { XDG_CONFIG_HOME: "/c" }), "/c/postern")
    assert.match(operatorHomeFolder(undefined, { XDG_CONFIG_HOME: "relative" }), /\/\.config\/postern$/)
  })
})

describe("files of the home", () => {
  it.effect("are private, whole, and absent before they are written", () =>
    inHome(
      Effect.gen(function* () {
        assert.isUndefined(yield* readJson("notes/a.json", Note))
        yield* writeJson("notes/a.json", Note, { text: "one" })
        yield* writeJson("notes/a.json", Note, { text: "two" })
        assert.deepStrictEqual(yield* readJson("notes/a.json", Note), { text: "two" })
        assert.deepStrictEqual([folder, join(folder, "notes"), join(folder, "notes/a.json")].map(modeOf), [
          "700",
          "700",
          "600"
        ])
        assert.deepStrictEqual(readdirSync(join(folder, "notes")), ["a.json"])
        const home = yield* OperatorHome
        assert.deepStrictEqual(yield* home.list("notes"), ["a.json"])
        assert.deepStrictEqual(yield* home.list("nothing"), [])
        yield* home.remove("notes/a.json")
        assert.deepStrictEqual(yield* home.list("notes"), [])
      })
    )
  )

  it.effect(
    "are refused when others can read them, and when they are damaged; no content stands in the error",
    () =>
      inHome(
        Effect.gen(function* () {
          yield* writeJson("a.json", Note, { text: "secret word" })
          chmodSync(join(folder, "a.json"), 0o644)
          const open = yield* Effect.flip(readJson("a.json", Note))
          assert.match(open.message, /open to other users.*chmod 0600/)
          chmodSync(join(folder, "a.json"), 0o600)
          writeFileSync(join(folder, "a.json"), `{"text": "secret word", `)
          const damaged = yield* Effect.flip(readJson("a.json", Note))
          assert.match(damaged.message, /a\.json: it is damaged\. Restore/)
          assert.notInclude(`${open.message} ${damaged.message}`, "secret")
        })
      )
  )

  it.effect("are never replaced where they must not be", () =>
    inHome(
      Effect.gen(function* () {
        const home = yield* OperatorHome
        yield* home.createBytes("k", new Uint8Array([1]))
        const again = yield* Effect.flip(home.createBytes("k", new Uint8Array([2])))
        assert.match(again.message, /EEXIST/)
        assert.deepStrictEqual([...readFileSync(join(folder, "k"))], [1])
      })
    )
  )

  it.live("are changed by one command at a time", () =>
    inHome(
      Effect.gen(function* () {
        const home = yield* OperatorHome
        const order: Array<string> = []
        const entered = yield* Deferred.make<void>()
        const leave = yield* Deferred.make<void>()
        const first = yield* Effect.forkChild(
          home.alone(
            Effect.gen(function* () {
              yield* Deferred.succeed(entered, undefined)
              yield* Deferred.await(leave)
              order.push("first")
            })
          )
        )
        yield* Deferred.await(entered)
        const second = yield* Effect.forkChild(home.alone(Effect.sync(() => order.push("second"))))
        yield* Deferred.succeed(leave, undefined)
        yield* Fiber.join(first)
        yield* Fiber.join(second)
        assert.deepStrictEqual(order, ["first", "second"])
        // A failure inside gives the lock back as well.
        yield* Effect.flip(home.alone(Effect.fail("as asked")))
        assert.strictEqual(yield* home.alone(Effect.succeed(3)), 3)
      })
    )
  )
})

describe("the device book", () => {
  const other = {
    ...deviceRecord,
    device: otherDevice.id as typeof deviceRecord.device,
    name: Name.make("attic")
  }

  it.effect("finds devices by name, id, and the beginning of an id", () =>
    inHome(
      Effect.gen(function* () {
        yield* writeDeviceRecord(deviceRecord)
        yield* writeDeviceRecord(other)
        const records = yield* deviceRecords
        assert.deepStrictEqual(
          records.map((record) => record.name),
          ["attic", "pi-cellar"]
        )
        for (const text of ["attic", other.device, other.device.slice(0, 12)]) {
          assert.strictEqual((yield* chooseDevice(text, records)).name, "attic")
        }
        for (const text of ["", "att", "dev_", "nobody"]) {
          assert.match((yield* Effect.flip(chooseDevice(text, records))).message, /no device/)
        }
        const twins = [deviceRecord, { ...other, name: deviceRecord.name }]
        assert.match((yield* Effect.flip(chooseDevice("pi-cellar", twins))).message, /any of 2 devices/)
      })
    )
  )
})

describe("the operator's keys", () => {
  const profile: OperatorProfile = {
    type: "postern/operator/v1",
    label: "test",
    key_id: operator.keyId,
    signing_key: operator.signingKey,
    recipient: operator.recipient,
    created_at_ms: nowMs
  }
  const write = (keys: typeof operator, passphrase: Redacted.Redacted | null) =>
    Effect.gen(function* () {
      const home = yield* OperatorHome
      yield* writeJson(operatorFile, OperatorProfile, profile)
      yield* home.createBytes(operatorKeyFile, yield* keyFileBytes(keys.stored, passphrase))
    })
  const notAsked = Effect.die("nobody should be asked")

  it.effect("sign for the root once they are opened; nothing is asked where there is no passphrase", () =>
    inHome(
      Effect.gen(function* () {
        assert.match((yield* Effect.flip(unlockKeys(notAsked))).message, /no operator keys .* keys init/)
        yield* write(operator, null)
        const keys = yield* unlockKeys(notAsked)
        const { envelope } = keys.sign("order", signedOrder(1).order)
        assert.isTrue(Result.isSuccess(verifyOrder(engine, trust.root, envelope)))
      })
    )
  )

  it.effect("ask for their passphrase, and refuse a wrong one", () =>
    inHome(
      Effect.gen(function* () {
        yield* write(operator, Redacted.make("right"))
        assert.notInclude(readFileSync(join(folder, operatorKeyFile), "latin1"), "AGE-SECRET-KEY")
        const keys = yield* unlockKeys(Effect.succeed(Redacted.make("right")))
        assert.strictEqual(keys.profile.key_id, operator.keyId)
        const wrong = yield* Effect.flip(unlockKeys(Effect.succeed(Redacted.make("wrong"))))
        assert.match(wrong.message, /passphrase does not open/)
      })
    )
  )

  it.effect("are refused when they are not those of the profile", () =>
    inHome(
      Effect.gen(function* () {
        yield* write(stranger, null)
        assert.match(
          (yield* Effect.flip(unlockKeys(notAsked))).message,
          /not the keys that operator\.json names/
        )
      })
    )
  )
})

describe("the operator's root", () => {
  it.effect("is verified whenever it is read", () =>
    inHome(
      Effect.gen(function* () {
        assert.isUndefined(yield* trustedRoot)
        yield* keepRoot(1, trust.envelope)
        const kept = yield* trustedRoot
        assert.strictEqual(kept?.firstDigest, trust.digest)
        assert.strictEqual(kept?.root.version, 1)
        yield* keepRoot(1, { ...trust.envelope, signatures: [] })
        assert.match((yield* Effect.flip(trustedRoot)).message, /does not hold .*Restore/)
      })
    )
  )
})

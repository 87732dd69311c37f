import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, assert, beforeEach, describe, it } from "@effect/vitest"
import { Redacted } from "effect"
import { NativeCrypto } from "../../../src/adapters/NativeCrypto.ts"
import { putService } from "../../../src/adapters/tor/OnionFolders.ts"
import { onionServiceKey } from "../../../src/crypto/OnionAddress.ts"
import { OnionClientKey } from "../../../src/schemas/Onion.ts"

const seed = (byte: number) => Redacted.make(new Uint8Array(32).fill(byte))
const key = onionServiceKey(NativeCrypto, seed(7), "device")
const one = OnionClientKey.make(`${"A".repeat(51)}A`)
const two = OnionClientKey.make(`${"B".repeat(51)}Q`)

let folder: string
beforeEach(() => {
  folder = join(mkdtempSync(join(tmpdir(), "onion-folder-")), "device")
})
afterEach(() => rmSync(join(folder, ".."), { recursive: true }))

const listed = (): ReadonlyArray<string> => readdirSync(join(folder, "authorized_clients")).sort()

describe("a service's folder", () => {
  it("has tor's files, for this user alone, and is left alone when it is as it must be", () => {
    assert.isTrue(putService(folder, key, new Set([one])))
    assert.isFalse(putService(folder, key, new Set([one])))
    const secret = readFileSync(join(folder, "hs_ed25519_secret_key"))
    assert.strictEqual(secret.length, 96)
    assert.strictEqual(secret.subarray(0, 29).toString(), "== ed25519v1-secret: type0 ==")
    assert.strictEqual(statSync(join(folder, "hs_ed25519_secret_key")).mode & 0o777, 0o600)
    assert.deepStrictEqual(listed(), [`${one.toLowerCase()}.auth`])
    const text = readFileSync(join(folder, "authorized_clients", `${one.toLowerCase()}.auth`), "utf8")
    assert.strictEqual(text, `descriptor:x25519:${one}\n`)
  })

  it("is mended, whatever was done to its list", () => {
    putService(folder, key, new Set([one, two]))
    const list = join(folder, "authorized_clients")
    const wanted = listed()
    const attempts: ReadonlyArray<() => void> = [
      () => rmSync(list, { recursive: true }),
      () => rmSync(join(list, wanted[0] as string)),
      () => writeFileSync(join(list, wanted[0] as string), ""),
      () => writeFileSync(join(list, "another.auth"), `descriptor:x25519:${two}\n`),
      () => mkdirSync(join(list, "folder.auth")),
      () => rmSync(join(folder, "hs_ed25519_secret_key"))
    ]
    for (const attempt of attempts) {
      attempt()
      assert.isTrue(putService(folder, key, new Set([one, two])))
      assert.deepStrictEqual(listed(), wanted)
      assert.isFalse(putService(folder, key, new Set([one, two])))
    }
  })

  it("lets nobody stay who must go, where somebody new cannot be written", () => {
    putService(folder, key, new Set([one, two]))
    const newcomer = OnionClientKey.make(`${"C".repeat(51)}A`)
    // As a full disk would: the file cannot be made.
    mkdirSync(join(folder, "authorized_clients", `${newcomer.toLowerCase()}.auth.new`))
    mkdirSync(join(folder, "authorized_clients", `${newcomer.toLowerCase()}.auth`, "in-the-way"), {
      recursive: true
    })
    assert.throws(() => putService(folder, key, new Set([newcomer, one])))
    assert.notInclude(listed(), `${two.toLowerCase()}.auth`)
    assert.include(listed(), `${one.toLowerCase()}.auth`)
  })

  it("is refused without anybody on the list, before anything is written", () => {
    assert.throws(() => putService(folder, key, new Set()))
    assert.throws(() => readdirSync(folder))
  })

  it("has its list when something keeps its key from being written, never the other way round", () => {
    mkdirSync(join(folder, "hs_ed25519_secret_key"), { recursive: true, mode: 0o700 })
    assert.throws(() => putService(folder, key, new Set([one])))
    assert.deepStrictEqual(listed(), [`${one.toLowerCase()}.auth`])
  })

  it("drops what belonged to another key", () => {
    putService(folder, key, null)
    writeFileSync(join(folder, "hostname"), "old")
    assert.isTrue(putService(folder, onionServiceKey(NativeCrypto, seed(8), "device"), null))
    assert.deepStrictEqual(readdirSync(folder), ["hs_ed25519_secret_key"])
  })
})

describe("the keys of a server's services", () => {
  it("follow from its signing key, each its own, and never change", () => {
    const hosts = (["enrol", "device", "management"] as const).map(
      (service) => onionServiceKey(NativeCrypto, seed(7), service).host
    )
    assert.strictEqual(new Set(hosts).size, 3)
    // As tor itself wrote it into the file `hostname`.
    assert.strictEqual(hosts[1], "77ebi2wlcstob5oe45yhth7y6fiehqhkoo5nt6zmlzjn4oxvuqbuk7qd.onion")
  })
})

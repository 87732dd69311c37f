/** The device's key to onion services, and what the doctor says of Tor. */
import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { dirname } from "node:path"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { torChecks } from "../../../src/adapters/doctor/TorChecks.ts"
import { SystemEntropy } from "../../../src/adapters/SystemEntropy.ts"
import { loadOnionKey, onionKeyPath } from "../../../src/adapters/tor/OnionClientKeyFile.ts"
import { Entropy } from "../../../src/ports/Entropy.ts"
import { folderOf, settingsOf } from "./support.ts"

const load = (folder: string) =>
  Effect.flatMap(Entropy, (entropy) => loadOnionKey(folder, entropy)).pipe(Effect.provide(SystemEntropy))

describe("the key to onion services", () => {
  it.live("is made once, for its owner's eyes only, and is the same at every start", () =>
    Effect.gen(function* () {
      const folder = yield* folderOf("key")
      const keys = yield* Effect.all([load(folder), load(folder)], { concurrency: 2 })
      const again = yield* load(folder)
      for (const key of keys) expect(Redacted.value(key)).toEqual(Redacted.value(again))
      expect(Redacted.value(again)).toHaveLength(32)
      expect(statSync(onionKeyPath(folder)).mode & 0o777).toBe(0o600)
      expect(String(again)).not.toContain(Buffer.from(Redacted.value(again)).toString("base64"))
    })
  )

  it.live("is never replaced when it is damaged or open to others, and never quoted", () =>
    Effect.gen(function* () {
      const folder = yield* folderOf("key")
      const path = onionKeyPath(folder)
      mkdirSync(dirname(path), { mode: 0o700 })
      for (const text of ["", "{}", '{"type":"postern/onion-client-key/v1","secret":"c2hvcnQ="}']) {
        writeFileSync(path, text, { mode: 0o600 })
        const error = yield* Effect.flip(load(folder))
        expect(error.message).toContain("damaged")
        expect(error.message).not.toContain("c2hvcnQ=")
        expect(readFileSync(path, "utf8")).toBe(text)
      }
      chmodSync(path, 0o644)
      expect((yield* Effect.flip(load(folder))).message).toContain("open to other")
    })
  )
})

describe("the doctor", () => {
  it.live("finds Tor's programs missing, and says what to install", () =>
    Effect.gen(function* () {
      const settings = settingsOf({ command: "no-such-tor", transports: ["obfs4 exec /nowhere/obfs4proxy"] })
      const state = {
        phase: "bootstrapping",
        progress: 10,
        summary: "Connected to a relay",
        reason: "the proxy refused",
        problem: null,
        clockSkewSeconds: null,
        clockDoubt: null
      } as const
      const found = yield* torChecks(settings, state)
      expect(found.map(({ id, state: how }) => `${id} ${how}`)).toEqual([
        "tor.program degraded",
        "tor.transport.obfs4 degraded",
        "tor.network degraded"
      ])
      expect(found[0]?.mend).toContain("apt-get install tor")
      expect(found[2]?.reason).toContain("the proxy refused")
      const attached = yield* torChecks(settingsOf({ command: "no-such-tor", socks: "127.0.0.1:9050" }))
      expect(attached.map(({ state: how }) => how)).toEqual(["ok"])
    })
  )
})

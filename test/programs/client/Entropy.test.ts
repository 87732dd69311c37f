/** Secrets come from the Entropy port alone: a seeded Random, which makes jitter repeatable, makes no secret so. */
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, Random } from "effect"
import { jittered } from "../../../src/actors/Delays.ts"
import { type Transport, TransportError } from "../../../src/adapters/http/Transport.ts"
import { SignedLink } from "../../../src/adapters/SignedLink.ts"
import { Identity } from "../../../src/ports/Identity.ts"
import { Ledger } from "../../../src/ports/Ledger.ts"
import { PackageStore } from "../../../src/ports/PackageStore.ts"
import { ServerLink } from "../../../src/ports/ServerLink.ts"
import type { ClientSettings } from "../../../src/programs/client/ClientSettings.ts"
import { ClientServices } from "../../../src/programs/client/RunClient.ts"
import { ServerServices } from "../../../src/programs/server/RunServer.ts"
import { operator, rootOf, server } from "../../actors/support/Parties.ts"
import { configOf } from "../../actors/support/TestDevice.ts"
import { temporaryFolder } from "../../adapters/support/folders.ts"

const seed = "the same in every run"
const entryOf = (name: string) => new URL(`../../../src/programs/${name}.ts`, import.meta.url)

/** A transport that keeps the nonces it is asked to carry. */
const listening = (nonces: Array<string>): Transport => ({
  send: (request) =>
    Effect.suspend(() => {
      nonces.push(/nonce="([^"]+)"/.exec(request.headers["signature-input"] ?? "")?.[1] ?? "")
      return Effect.fail(new TransportError({ reason: "this is a test", stale: false }))
    })
})

/** Everything unguessable that a client makes on its first start. */
const clientSecrets = Effect.gen(function* () {
  const folder = yield* temporaryFolder
  const settings: ClientSettings = {
    config: configOf({ state_folder: folder }),
    configurationDigest: null,
    invitation: null,
    once: false
  }
  const nonces: Array<string> = []
  const link = SignedLink({ transport: listening(nonces), addresses: ["http://127.0.0.1:8470"] })
  return yield* Effect.gen(function* () {
    const identity = yield* Identity
    const ledger = yield* Ledger
    const store = yield* PackageStore
    const serverLink = yield* ServerLink
    yield* serverLink.trust({ root: rootOf(), server })
    const report = { events: [] as never }
    yield* Effect.ignore(serverLink.progress(report))
    yield* Effect.ignore(serverLink.progress(report))
    const sealed = yield* store.sealChunk(new Uint8Array(10), [operator.recipient])
    const jitter = yield* jittered(1_000_000)
    return {
      jitter,
      secrets: [
        identity.id,
        identity.signingKey,
        identity.recipient,
        ledger.incarnation,
        Buffer.from(sealed.bytes).toString("hex"),
        ...nonces
      ]
    }
  }).pipe(Effect.provide(Layer.provideMerge(link, ClientServices(settings, entryOf("client")))))
}).pipe(Effect.scoped, Random.withSeed(seed))

const serverSecrets = Effect.gen(function* () {
  const folder = yield* temporaryFolder
  const config = { state_folder: folder, maximum_devices: 10 }
  return yield* Effect.map(Identity, (identity) => [
    identity.id,
    identity.signingKey,
    identity.recipient
  ]).pipe(Effect.provide(ServerServices(config as never, entryOf("server"))))
}).pipe(Effect.scoped, Random.withSeed(seed))

const sources = (folder: string): ReadonlyArray<string> =>
  readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
    .map((entry) => join(entry.parentPath, entry.name))

describe("a production topology", () => {
  it.live("of a client ignores a seeded Random for everything secret, and heeds it for jitter", () =>
    Effect.gen(function* () {
      const first = yield* clientSecrets
      const second = yield* clientSecrets
      expect(first.jitter).toBe(second.jitter)
      expect(first.secrets).toHaveLength(7)
      const all = [...first.secrets, ...second.secrets]
      expect(all).not.toContain("")
      expect(new Set(all).size).toBe(all.length)
    })
  )
  it.live("of a server does likewise", () =>
    Effect.gen(function* () {
      const all = [...(yield* serverSecrets), ...(yield* serverSecrets)]
      expect(new Set(all).size).toBe(all.length)
    })
  )
  it("uses Effect's Random for delays only", () => {
    const root = join(import.meta.dirname, "../../../src")
    const users = sources(root)
      .filter((path) =>
        /\bRandom\b/.test(readFileSync(path, "utf8").replace(/^\s*(\/\*\*|\*|\/\/).*$/gm, ""))
      )
      .map((path) => path.slice(root.length + 1))
    expect(users.sort()).toEqual(["actors/Delays.ts", "kernel/Backoff.ts"])
  })
})

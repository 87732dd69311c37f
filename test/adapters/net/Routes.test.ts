import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import { makeRoutes, proxyRoutes, readProxy, type TorWay } from "../../../src/adapters/net/Routes.ts"
import { parseProxy, type UpstreamProxy } from "../../../src/schemas/TorSettings.ts"
import type { TunnelState } from "../../../src/schemas/TunnelState.ts"

const endpoint = { path: "/run/tor/socks" }
const onion = `http://${"a".repeat(55)}d.onion`
const proxy = parseProxy("http://me:secret@proxy.test:3128") as UpstreamProxy
const state = (change: Partial<TunnelState>): TunnelState => ({
  phase: "ready",
  progress: 100,
  summary: "Done",
  reason: null,
  problem: null,
  clockSkewSeconds: null,
  clockDoubt: null,
  ...change
})

/** A tunnel that stays as it is. */
const tunnel = (change: Partial<TunnelState> = {}, asked: Array<string> = []): TorWay => ({
  endpoint: (origin) =>
    Effect.sync(() => {
      asked.push(origin)
      return change.phase === "off" || change.phase === "starting" ? null : endpoint
    }),
  state: Effect.succeed(state(change)),
  changed: () => Effect.never
})

const tagOf = (options: Partial<Parameters<typeof makeRoutes>[0]>, origin: string) =>
  Effect.map(
    makeRoutes({ mode: "auto", proxy: null, tor: tunnel(), ...options }).to(origin),
    (route) => route._tag
  )

describe("the routes of a device", () => {
  it.effect("follow the mode, the kind of address and the upstream proxy", () =>
    Effect.gen(function* () {
      const clear = "https://postern.example"
      const here = "http://127.0.0.1:8470"
      const table = [
        ["auto", null, onion, "Tor"],
        ["auto", null, clear, "Direct"],
        ["auto", proxy, onion, "Tor"],
        ["auto", proxy, clear, "Upstream"],
        ["auto", proxy, here, "Direct"],
        ["always", null, onion, "Tor"],
        ["always", null, clear, "Tor"],
        ["always", proxy, clear, "Tor"],
        ["always", null, here, "Direct"],
        ["always", null, "http://localhost:8470", "Tor"],
        ["auto", proxy, "http://localhost:8470", "Direct"],
        ["never", proxy, "https://localhost", "Direct"],
        ["auto", proxy, "http://localhost.example", "Upstream"],
        ["never", null, onion, "Refused"],
        ["never", proxy, onion, "Refused"],
        ["never", null, clear, "Direct"],
        ["never", proxy, clear, "Upstream"]
      ] as const
      for (const [mode, upstream, origin, expected] of table)
        assert.strictEqual(yield* tagOf({ mode, proxy: upstream }, origin), expected, `${mode} ${origin}`)
    })
  )

  it.effect("ask for a tunnel only where one is needed", () =>
    Effect.gen(function* () {
      const asked: Array<string> = []
      const tor = tunnel({}, asked)
      yield* tagOf({ tor }, "https://postern.example")
      yield* tagOf({ tor, mode: "never" }, onion)
      assert.deepStrictEqual(asked, [])
      yield* tagOf({ tor }, onion)
      assert.include(asked, onion)
    })
  )

  it("never lead to an onion address but through Tor, nor anywhere else in the mode always", () =>
    fc.assert(
      fc.asyncProperty(
        fc.constantFrom("auto", "always", "never"),
        fc.constantFrom(null, proxy),
        fc.constantFrom("http", "https"),
        fc.oneof(fc.domain(), fc.ipV4(), fc.constantFrom("localhost", "ONION.onion", "x.y.onion", "[::1]")),
        fc.boolean(),
        fc.option(fc.integer({ min: 1, max: 65_535 })),
        async (mode, upstream, scheme, host, isOnion, port) => {
          const name = isOnion ? `${host}.onion` : host
          const origin = `${scheme}://${name}${port === null ? "" : `:${port}`}`
          const tag = await Effect.runPromise(tagOf({ mode, proxy: upstream }, origin))
          if (/\.onion$/i.test(name)) assert.include(mode === "never" ? ["Refused"] : ["Tor"], tag)
          const isHere = name === "[::1]" || /^127(\.\d+){3}$/.test(name)
          if (mode === "always") assert.strictEqual(tag, isHere ? "Direct" : "Tor")
        }
      ),
      { numRuns: 500 }
    ))

  it.effect("wait a while for a tor that is on its way, then say how far it is", () =>
    Effect.gen(function* () {
      const tor = tunnel({
        phase: "bootstrapping",
        progress: 10,
        summary: "Connecting to a relay",
        reason: "no route"
      })
      const going = yield* Effect.forkChild(makeRoutes({ mode: "auto", proxy: null, tor }).to(onion))
      yield* TestClock.adjust("25 seconds")
      assert.deepInclude(yield* Fiber.join(going), {
        _tag: "Refused",
        failure: "tunnel_not_ready",
        reason: "it needs Tor, which is not ready: 10 %, Connecting to a relay (no route)"
      })
    })
  )

  it.effect("take the tunnel as soon as it is ready", () =>
    Effect.gen(function* () {
      let now = state({ phase: "off", progress: 0 })
      const tor: TorWay = {
        endpoint: () => Effect.sync(() => (now.phase === "ready" ? endpoint : null)),
        state: Effect.sync(() => now),
        changed: () =>
          Effect.sync(() => {
            now = state({ phase: now.phase === "off" ? "bootstrapping" : "ready" })
            return now
          })
      }
      const route = yield* makeRoutes({ mode: "auto", proxy: null, tor }).to(onion)
      assert.deepStrictEqual(route, { _tag: "Tor", endpoint })
    })
  )

  it.effect("do not wait for a tor that cannot run, and try one that has lost its circuits", () =>
    Effect.gen(function* () {
      const missing = tunnel({
        phase: "off",
        summary: "not running",
        reason: "there is no tor",
        problem: "missing"
      })
      assert.strictEqual(yield* tagOf({ tor: missing }, onion), "Refused")
      assert.strictEqual(yield* tagOf({ tor: tunnel({ phase: "lost" }) }, onion), "Tor")
    })
  )
})

describe("the routes of an operator", () => {
  it.effect("go through the proxy that is named, and never look up an onion address", () =>
    Effect.gen(function* () {
      const tag = (text: string | null, origin: string) => {
        const named = text === null ? null : readProxy(text)
        if (named !== null && "problem" in named) throw new Error(named.problem)
        return Effect.map(proxyRoutes(named?.proxy ?? null).to(origin), (route) => route._tag)
      }
      const tor = "socks5h://127.0.0.1:9050"
      assert.strictEqual(yield* tag(null, onion), "Refused")
      assert.strictEqual(yield* tag(null, "https://postern.example"), "Direct")
      assert.strictEqual(yield* tag(tor, onion), "Tor")
      assert.strictEqual(yield* tag(tor, "https://postern.example"), "Upstream")
      assert.strictEqual(yield* tag(tor, "http://127.0.0.1:8470"), "Direct")
      assert.strictEqual(yield* tag("http://proxy.test:3128/", onion), "Upstream")
    })
  )

  it("take what people write, and never quote a password", () => {
    assert.deepStrictEqual(readProxy("socks5h://[::1]:9050"), {
      proxy: { kind: "socks5", host: "::1", port: 9050, credentials: null }
    })
    for (const text of [
      "ftp://me:secret@proxy.test:1",
      "me:secret@proxy.test:3128",
      "http://me:a/secret@proxy.test:1"
    ]) {
      const wrong = readProxy(text)
      assert.notInclude("problem" in wrong ? wrong.problem : "secret", "secret", text)
    }
    assert.isTrue("problem" in readProxy("socks5h://127.0.0.1"))
  })
})

/** The tunnel keeper: when Tor is opened, opened again, and said not to be had. */
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Layer } from "effect"
import { MainLoopKey, TunnelKeeperKey } from "../../src/actors/ClientKeys.ts"
import { Tunnel } from "../../src/ports/Tunnel.ts"
import { TorError } from "../../src/schemas/TorError.ts"
import type { TunnelState } from "../../src/schemas/TunnelState.ts"
import { deviceUnderTest, type TestDevice } from "./support/TestDevice.ts"

const off: TunnelState = {
  phase: "off",
  progress: 0,
  summary: "not needed yet",
  reason: null,
  problem: null,
  clockSkewSeconds: null,
  clockDoubt: null
}

/** A tunnel that the test opens and breaks. */
class ScriptedTunnel {
  readonly wanted = Deferred.makeUnsafe<void>()
  opened = 0
  closed = 0
  state: TunnelState = off
  missing = false
  private ended = Deferred.makeUnsafe<string>()
  private changed = Deferred.makeUnsafe<void>()

  private become(state: TunnelState): void {
    this.state = state
    const { changed } = this
    this.changed = Deferred.makeUnsafe<void>()
    Deferred.doneUnsafe(changed, Effect.void)
  }

  end(reason: string): void {
    this.become({ ...off, phase: "lost", reason })
    Deferred.doneUnsafe(this.ended, Effect.succeed(reason))
  }

  readonly layer = Layer.succeed(Tunnel, {
    open: Effect.suspend(() => {
      if (this.missing) {
        const error = new TorError({ code: "missing", reason: "there is no program tor", mend: "install it" })
        this.become({ ...off, phase: "lost", reason: error.message, problem: error.code })
        return Effect.fail(error)
      }
      this.opened++
      this.ended = Deferred.makeUnsafe<string>()
      this.become({ ...off, phase: "ready", progress: 100, summary: "Done" })
      const open = { ended: Deferred.await(this.ended) }
      return Effect.acquireRelease(Effect.succeed(open), () => Effect.sync(() => void this.closed++))
    }),
    state: Effect.sync(() => this.state),
    changed: (from) =>
      Effect.gen({ self: this }, function* () {
        while (this.state === from) yield* Deferred.await(this.changed)
        return this.state
      }),
    wanted: Deferred.await(this.wanted),
    endpoint: () => Effect.succeed(null),
    clientKey: Effect.succeed(null),
    authorise: () => Effect.void,
    renew: Effect.void
  })
}

const systemOf = (device: TestDevice) => device.system as NonNullable<TestDevice["system"]>

describe("the tunnel keeper", () => {
  it.effect(
    "opens Tor when it is wanted and not before, again at once when it ends, and ever more slowly",
    () =>
      Effect.gen(function* () {
        const tunnel = new ScriptedTunnel()
        const device = yield* deviceUnderTest({ tunnel: tunnel.layer })
        yield* device.pass(60_000)
        expect(tunnel.opened).toBe(0)
        Deferred.doneUnsafe(tunnel.wanted, Effect.void)
        yield* device.until(() => tunnel.opened === 1, "the first opening")
        tunnel.end("tor ended by SIGKILL")
        yield* device.until(() => tunnel.opened === 2, "the second opening", 1_000, 50)
        expect(tunnel.closed).toBe(1)
        for (let ends = 0; ends < 6; ends++) {
          const before = tunnel.opened
          tunnel.end("tor ended with code 1")
          yield* device.until(() => tunnel.opened === before + 1, "a further opening", 60_000)
        }
        tunnel.end("tor ended with code 1")
        const before = tunnel.opened
        yield* device.pass(20_000)
        expect(tunnel.opened).toBe(before)
        yield* device.until(() => tunnel.opened === before + 1, "the last opening", 60_000)
        // One that held for a while is begun again at once, however often that comes.
        for (let ends = 0; ends < 6; ends++) {
          const opened = tunnel.opened
          yield* device.pass(6_000)
          tunnel.end("tor ended by SIGKILL")
          yield* device.until(() => tunnel.opened === opened + 1, "an opening at once", 1_000, 50)
        }
      })
  )

  it.effect("says that Tor is not to be had, while addresses that need none still serve", () =>
    Effect.gen(function* () {
      const tunnel = new ScriptedTunnel()
      tunnel.missing = true
      Deferred.doneUnsafe(tunnel.wanted, Effect.void)
      const device = yield* deviceUnderTest({ tunnel: tunnel.layer })
      yield* device.pass(180_000)
      const status = yield* Effect.orDie(systemOf(device).ref(MainLoopKey).ask("Status"))
      expect(status.polls).toBeGreaterThan(0)
      expect(status.degraded).toContainEqual({
        code: "tor_unavailable",
        detail: "there is no program tor: install it"
      })
      tunnel.missing = false
      yield* device.until(() => tunnel.opened === 1, "the opening once it is installed", 120_000)
      const keeper = yield* Effect.orDie(systemOf(device).ref(TunnelKeeperKey).ask("Status"))
      expect(keeper.state.phase).toBe("ready")
    })
  )
})

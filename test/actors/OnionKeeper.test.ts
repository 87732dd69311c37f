import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import { onionKeeper } from "../../src/actors/OnionKeeper.ts"
import { TestKit } from "../../src/kernel/testing/TestKit.ts"
import { FleetStore } from "../../src/ports/FleetStore.ts"
import { type OnionHosts, OnionServices, OnionTrouble } from "../../src/ports/OnionServices.ts"
import type { InvitationId } from "../../src/schemas/Ids.ts"
import { Limits } from "../../src/schemas/Limits.ts"
import { OnionHost } from "../../src/schemas/Onion.ts"
import type { OnionStatus } from "../../src/schemas/OnionStatus.ts"
import type { TunnelState } from "../../src/schemas/TunnelState.ts"
import { makeDisk, servicesOver } from "../support/fleet.ts"

const host = OnionHost.make(`${"a".repeat(55)}d.onion`)
const hosts: OnionHosts = { enrol: host, device: host, management: host }
const closed: OnionStatus = {
  tor: { own: true, progress: 0, summary: "tor does not run", warning: null },
  services: []
}
const ready: OnionStatus = { ...closed, tor: { ...closed.tor, progress: 100, summary: "Done" } }

/** A tor that does what it is told, or not. */
class FakeTor {
  readonly said: Array<string> = []
  lives = 0
  open = 0
  canOpen = true
  canPublish = true
  tunnel: TunnelState | null = null
  end: Deferred.Deferred<string> = Deferred.makeUnsafe()

  private tell(what: string): Effect.Effect<void, OnionTrouble> {
    return Effect.suspend(() => {
      this.said.push(what)
      return this.canPublish
        ? Effect.void
        : Effect.fail(new OnionTrouble({ operation: "publishing", reason: "tor says no" }))
    })
  }

  private readonly life: OnionServices["Service"]["open"] = Effect.gen({ self: this }, function* () {
    this.lives++
    if (!this.canOpen) {
      yield* Effect.sleep(1_000)
      return yield* new OnionTrouble({ operation: "starting tor", reason: "no such program" })
    }
    this.end = Deferred.makeUnsafe()
    yield* Effect.acquireRelease(
      Effect.sync(() => void this.open++),
      () => Effect.sync(() => void this.open--)
    )
    return {
      setClients: (keys: ReadonlyArray<unknown>) => this.tell(`clients ${keys.length}`),
      publishEnrolment: (isOpen: boolean) => this.tell(`enrolment ${isOpen}`),
      check: this.tell("check"),
      status: Effect.succeed(ready),
      tunnel: Effect.sync(() => this.tunnel),
      ended: Deferred.await(this.end)
    }
  })

  readonly layer = Layer.succeed(OnionServices, { hosts, closed, open: this.life })
}

/** Time in steps, so that what it sets off is done meanwhile. */
const pass = (totalMs: number) =>
  Effect.replicateEffect(Effect.andThen(TestClock.adjust(500), TestKit.settle), totalMs / 500, {
    discard: true
  })

/** The keeper alone, over an empty store. */
const keeping = Effect.fnUntraced(function* (
  tor: FakeTor,
  enrolment: "invited" | "always" | "never" = "invited"
) {
  const services = yield* Layer.build(Layer.merge(tor.layer, servicesOver(yield* makeDisk)))
  const behaviour = onionKeeper({ enrolment, maximum_clients: 10 })
  const { ref } = yield* Effect.provide(TestKit.start(behaviour), services)
  yield* pass(500)
  return { ref, store: yield* Effect.provide(FleetStore, services) }
})

describe("the onion keeper", () => {
  it.effect(
    "publishes the list of devices first, then what newcomers may see, and looks again and again",
    () =>
      Effect.gen(function* () {
        const tor = new FakeTor()
        yield* keeping(tor)
        assert.deepStrictEqual(tor.said, ["clients 0", "enrolment false"])
        yield* pass(10_000)
        assert.deepStrictEqual(tor.said.slice(2), ["check"])
      })
  )

  it.effect(
    "opens enrolment at once when somebody is invited, and closes it a while after the invitation's end",
    () =>
      Effect.gen(function* () {
        const tor = new FakeTor()
        const { ref, store } = yield* keeping(tor)
        yield* store.addInvitation(`inv_${"a".repeat(52)}` as InvitationId, 60_000, "alice", 0)
        yield* ref.tell("EnrolmentChanged")
        yield* pass(500)
        assert.strictEqual(tor.said.at(-1), "enrolment true")
        yield* pass(60_000 + Limits.enrolmentLingerMs - 30_000)
        assert.notInclude(tor.said.slice(3), "enrolment false")
        yield* pass(60_000)
        assert.include(tor.said.slice(3), "enrolment false")
      })
  )

  it.effect("publishes enrolment always or never where it is told so", () =>
    Effect.gen(function* () {
      for (const [mode, word] of [
        ["always", "enrolment true"],
        ["never", "enrolment false"]
      ] as const) {
        const tor = new FakeTor()
        yield* keeping(tor, mode)
        assert.include(tor.said, word)
      }
    })
  )

  it.effect(
    "starts a tor that was lost again, tells it everything anew, and says meanwhile why there is none",
    () =>
      Effect.gen(function* () {
        const tor = new FakeTor()
        const { ref } = yield* keeping(tor)
        assert.deepStrictEqual(yield* ref.ask("Status"), ready)
        tor.canOpen = false
        yield* Deferred.succeed(tor.end, "tor was killed")
        yield* pass(30_000)
        assert.strictEqual(tor.open, 0)
        assert.isAbove(tor.lives, 2)
        const asking = yield* Effect.forkChild(ref.ask("Status", undefined, { timeoutMs: 60_000 }))
        yield* pass(30_000)
        const { tor: told } = yield* Fiber.join(asking)
        assert.include(told.warning ?? "", "no such program")
        tor.canOpen = true
        tor.said.length = 0
        yield* pass(60_000)
        assert.strictEqual(tor.open, 1)
        assert.deepStrictEqual(tor.said.slice(0, 2), ["clients 0", "enrolment false"])
      })
  )

  it.effect(
    "begins anew with a tor that stands still, later each time, and leaves one alone that gets on",
    () =>
      Effect.gen(function* () {
        const minute = 60_000
        const tor = new FakeTor()
        const at = (progress: number, phase: TunnelState["phase"] = "bootstrapping"): TunnelState => ({
          phase,
          progress,
          summary: "on its way",
          reason: null,
          problem: null,
          clockSkewSeconds: null,
          clockDoubt: null
        })
        tor.tunnel = at(14)
        const { ref } = yield* keeping(tor)
        // Two minutes, of which up to a third is taken away by chance; the second life has twice as long.
        yield* pass(150_000)
        assert.strictEqual(tor.lives, 2)
        yield* pass(80_000)
        assert.strictEqual(tor.lives, 2)
        yield* pass(180_000)
        assert.strictEqual(tor.lives, 3)
        assert.strictEqual(tor.open, 1)
        tor.tunnel = at(100, "ready")
        yield* pass(10 * minute)
        assert.strictEqual(tor.lives, 3)
        assert.deepStrictEqual(yield* ref.ask("Status"), ready)
        // One that is not ours to end is nobody's business here.
        tor.tunnel = null
        yield* pass(10 * minute)
        assert.strictEqual(tor.lives, 3)
      })
  )

  it.effect("tries again what tor refused, until it is done", () =>
    Effect.gen(function* () {
      const tor = new FakeTor()
      tor.canPublish = false
      yield* keeping(tor)
      yield* pass(10_000)
      assert.isAbove(tor.said.filter((word) => word === "clients 0").length, 2)
      assert.notInclude(tor.said, "enrolment false")
      tor.canPublish = true
      yield* pass(10_000)
      assert.include(tor.said, "enrolment false")
    })
  )
})

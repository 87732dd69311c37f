import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Layer, Redacted } from "effect"
import { BrokerKeeperKey, DirectoryKey } from "../../../src/actors/ServerKeys.ts"
import { hashToken } from "../../../src/adapters/http/ManagementAccess.ts"
import { makeManagementApi } from "../../../src/adapters/http/ManagementService.ts"
import { TestKit } from "../../../src/kernel/testing/TestKit.ts"
import { FleetStore } from "../../../src/ports/FleetStore.ts"
import { serverActors, startServer } from "../../../src/programs/serverDoors.ts"
import type { Name } from "../../../src/schemas/Ids.ts"
import { Limits } from "../../../src/schemas/Limits.ts"
import type { AgentsOverview, AgentView } from "../../../src/schemas/MessagingViews.ts"
import { atWork, config, exchange, makeDisk, servicesOver } from "../../support/fleet.ts"
import { device, engine, server } from "../../support/operators.ts"

const token = `postern-token-v1.${"v".repeat(52)}`

const agentOf = (name: string): AgentView => ({
  agent: name as Name,
  device: device.id as AgentView["device"],
  signing_key: device.signingKey,
  agreement: { key: device.agreementKey, version: 1 },
  status: "C",
  status_at_ms: 5,
  visible: true,
  edge_devices: [],
  undelivered: 0,
  queued: 0
})
const agents = Array.from({ length: 250 }, (_, index) => agentOf(`pi-${String(index).padStart(3, "0")}`))

const overview: AgentsOverview = {
  signing_key: server.signingKey,
  agents: { C: 250, DG: 0, DU: 0 },
  visible: 250,
  undelivered: 0,
  queued: 0,
  refusals: { replayed: 2 },
  last_refusal_at_ms: 7
}

/** The API of a server whose directory and broker answer like this. */
const api = (messaging: "on" | "off" | "broken", brokerAnswers = true) =>
  Effect.gen(function* () {
    yield* atWork
    const services = yield* Layer.build(servicesOver(yield* makeDisk))
    const directory = TestKit.probe(DirectoryKey, {
      Overview: () => Effect.succeed(overview),
      Agents: ({ payload: { behind, limit } }) =>
        Effect.succeed(agents.filter(({ agent }) => behind === null || agent > behind).slice(0, limit)),
      Agent: ({ payload }) =>
        Effect.succeed(payload.agent === "pi-001" ? { agent: agentOf("pi-001"), refusals: [] } : null),
      Refusals: ({ payload: { limit } }) =>
        Effect.succeed([{ agent: null, code: "replayed" as const, count: 2, last_at_ms: 7 }].slice(0, limit))
    })
    const keeper = TestKit.probe(BrokerKeeperKey, {
      State: () =>
        brokerAnswers
          ? Effect.succeed({ addresses: [], connected: 3 })
          : Effect.die(new Error("it is broken"))
    })
    const handle = yield* Effect.gen(function* () {
      const parts = messaging === "on" ? [directory.spec, keeper.spec] : []
      const system = yield* startServer(config, () => parts)
      const store = yield* FleetStore
      yield* store.addToken("viewer", "viewer", hashToken(engine, Redacted.make(token)), 0)
      return yield* makeManagementApi({
        actors: serverActors(system),
        stopping: Effect.never,
        inspect: system.inspect(),
        startedAtMs: yield* Clock.currentTimeMillis,
        pollSleepMs: config.poll_sleep_ms,
        requestsPerMinute: 6_000,
        metrics: Effect.succeed(""),
        messaging
      })
    }).pipe(Effect.provideContext(services))
    return (path: string, query = "") =>
      exchange(handle, {
        method: "GET",
        authority: "127.0.0.1:8470",
        path: `/api/management/v1${path}`,
        query,
        headers: { authorization: `Bearer ${token}` },
        body: new Uint8Array(0)
      })
  })

describe("messages between devices, over the management API", () => {
  it.effect("are not there where the server carries none, and status says whether it should", () =>
    Effect.gen(function* () {
      for (const [mode, problem] of [
        ["off", /^null$/],
        ["broken", /though it should/]
      ] as const) {
        const get = yield* api(mode)
        for (const path of [
          "/messaging",
          "/messaging/agents",
          "/messaging/agents/pi-001",
          "/messaging/refusals"
        ]) {
          const reply = yield* get(path)
          assert.strictEqual(reply.status, 404)
          assert.deepInclude(reply.json, { _tag: "NotFound", code: "not_found" })
        }
        const { json } = yield* get("/status")
        assert.deepInclude(json, { messaging: null })
        assert.match(String((json as { messaging_problem: string }).messaging_problem), problem)
      }
    })
  )

  it.effect("are shown as the actors tell, agents in pages", () =>
    Effect.gen(function* () {
      const get = yield* api("on")
      const status = yield* get("/messaging")
      const whole = { ...overview, in_root: false, broker: { state: "open", addresses: [], connected: 3 } }
      assert.deepStrictEqual(status.json, whole)
      assert.deepInclude((yield* get("/status")).json, { messaging: whole, messaging_problem: null })
      const names: Array<string> = []
      let query = ""
      for (let page = 0; page < 3; page++) {
        const { json } = yield* get("/messaging/agents", query)
        const { agents: found, next } = json as { agents: ReadonlyArray<AgentView>; next: string | null }
        assert.isAtMost(found.length, Limits.agentsPerPage)
        names.push(...found.map(({ agent }) => agent))
        if (next === null) break
        query = `?after=${next}`
      }
      assert.deepStrictEqual(
        names,
        agents.map(({ agent }) => agent)
      )
      assert.strictEqual((yield* get("/messaging/agents", "?limit=100000")).status, 200)
      assert.strictEqual((yield* get("/messaging/agents", "?after=NO%20NAME")).status, 400)
      assert.strictEqual((yield* get("/messaging/agents", "?status=X")).status, 400)
      assert.strictEqual((yield* get("/messaging/agents/pi-001")).status, 200)
      assert.strictEqual((yield* get("/messaging/agents/pi-999")).status, 404)
      assert.deepStrictEqual((yield* get("/messaging/refusals", "?limit=5")).json, {
        refusals: [{ agent: null, code: "replayed", count: 2, last_at_ms: 7 }]
      })
    })
  )

  it.effect("say that the broker is down where it does not answer, and all else", () =>
    Effect.gen(function* () {
      const get = yield* api("on", false)
      const { json } = yield* get("/messaging")
      assert.deepInclude(json, {
        broker: { state: "down", addresses: [], connected: null },
        agents: overview.agents
      })
    })
  )
})

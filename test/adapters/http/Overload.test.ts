/** The port under more than it takes: what is refused is refused at once, what is accepted is served, and it recovers. */
import { request } from "node:http"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Metric } from "effect"
import { PrometheusMetrics } from "effect/observability"
import { httpGateway } from "../../../src/adapters/http/HttpGateway.ts"
import { encodeJson } from "../../../src/adapters/http/Json.ts"
import { RequestFigures } from "../../../src/adapters/http/RequestFigures.ts"
import { ActorKey, ActorSystem, ChildSpec, Supervisor } from "../../../src/kernel/index.ts"
import { GatewayProtocol } from "../../../src/schemas/protocols/Gateway.ts"

interface Told {
  readonly status: number
  readonly retryAfter: string | undefined
  readonly body: string
}

/** Asks on a connection of its own. */
const ask = (origin: string): Promise<Told> =>
  new Promise((resolve, reject) => {
    const outgoing = request(`${origin}/anything`, { agent: false }, (incoming) => {
      let text = ""
      incoming.setEncoding("utf8").on("data", (part) => {
        text += part
      })
      incoming.on("error", reject)
      incoming.on("end", () =>
        resolve({ status: incoming.statusCode ?? 0, retryAfter: incoming.headers["retry-after"], body: text })
      )
    })
    outgoing.on("error", reject)
    outgoing.end()
  })

const maximumRequests = 20
const key = ActorKey.make("http", GatewayProtocol)

describe("more requests than are taken", () => {
  it.live("are refused at once with Retry-After; the accepted end well, and the next are served", () =>
    Effect.gen(function* () {
      const open = yield* Deferred.make<void>()
      const origin = yield* Deferred.make<string>()
      const registry: Metric.MetricRegistry = new Map()
      const figures = new RequestFigures(registry)
      const answer = { status: 200, headers: { "content-type": "application/json" }, body: encodeJson({}) }
      const held = () => Effect.as(Deferred.await(open), answer)
      const spec = ChildSpec.make({
        key,
        behaviour: httpGateway({
          at: { host: "127.0.0.1", port: 0 },
          maximumRequests,
          apis: () => Effect.succeed({ device: held, management: held }),
          listening: (address) => Deferred.succeed(origin, address),
          figures
        })
      })
      yield* ActorSystem.make({
        root: Supervisor.spec({ id: "test", strategy: "one-for-one", children: [spec] })
      })
      const address = yield* Deferred.await(origin)

      const accepted = Array.from({ length: maximumRequests }, () => ask(address))
      yield* Effect.promise(async () => {
        while (figures.now().inWork < maximumRequests) await new Promise((resolve) => setImmediate(resolve))
      })
      // All of these end while the accepted ones still wait: that is what "at once" means.
      const refused = yield* Effect.promise(() =>
        Promise.all(Array.from({ length: 200 }, () => ask(address)))
      )
      assert.deepStrictEqual(new Set(refused.map(({ status }) => status)), new Set([503]))
      assert.isTrue(refused.every(({ retryAfter }) => Number(retryAfter) > 0))
      assert.deepInclude(JSON.parse(refused[0]?.body ?? ""), { code: "overloaded" })
      assert.strictEqual(figures.now().inWork, maximumRequests)

      yield* Deferred.succeed(open, undefined)
      const served = yield* Effect.promise(() => Promise.all(accepted))
      assert.deepStrictEqual(new Set(served.map(({ status }) => status)), new Set([200]))
      const after = yield* Effect.promise(() => ask(address))
      assert.strictEqual(after.status, 200)
      const text = yield* Effect.provideService(PrometheusMetrics.format(), Metric.MetricRegistry, registry)
      assert.match(text, /postern_http_rejected_total 200/)
      assert.match(text, /postern_http_requests_total\{api="management",route="unknown",status="200"\} 21/)
    }).pipe(Effect.scoped)
  )
})

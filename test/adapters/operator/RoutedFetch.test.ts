import { createServer, type RequestListener } from "node:http"
import type { AddressInfo } from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { httpTransport } from "../../../src/adapters/HttpTransport.ts"
import { proxyRoutes } from "../../../src/adapters/net/Routes.ts"
import {
  fetchServerIdentity,
  ManagementClient,
  managementClient
} from "../../../src/adapters/operator/ManagementClient.ts"
import { fetchOver } from "../../../src/adapters/operator/RoutedFetch.ts"
import type { UpstreamProxy } from "../../../src/schemas/TorSettings.ts"
import { serverIdentity } from "../../support/operators.ts"
import { socksServer } from "../net/SocksServer.ts"

const address = `http://${"a".repeat(55)}d.onion`

const webServer = (answer: RequestListener) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly port: number; readonly end: () => void }>((resume) => {
      const server = createServer(answer)
      server.listen(0, "127.0.0.1", () => {
        const end = () => {
          server.closeAllConnections()
          server.close()
        }
        resume(Effect.succeed({ port: (server.address() as AddressInfo).port, end }))
      })
    }),
    ({ end }) => Effect.sync(end)
  ).pipe(Effect.map(({ port }) => port))

/** A Tor that knows one onion service, and a way through it. */
const torBefore = (answer: RequestListener) =>
  Effect.gen(function* () {
    const port = yield* webServer(answer)
    const socks = yield* socksServer(({ host }) => (host.endsWith(".onion") ? port : { reply: 4 }))
    const at = "port" in socks.endpoint ? socks.endpoint.port : 0
    const proxy: UpstreamProxy = { kind: "socks5", host: "127.0.0.1", port: at, credentials: null }
    return { ...socks, proxy }
  })

describe("the operator's line through a proxy", () => {
  it.live("hands the name to it, and carries token, body and answer", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const { asks, proxy } = yield* torBefore((request, response) => {
        seen.push(`${request.headers.host} ${request.headers.authorization}`)
        response.writeHead(404, { "content-type": "application/json" })
        response.end("{}")
      })
      const client = managementClient({ address, proxy, token: Redacted.make("secret-token") })
      const problem = yield* Effect.flip(
        Effect.flatMap(ManagementClient, (line) =>
          line.call("ask for the status", (api) => api.server.status())
        ).pipe(Effect.provide(client))
      )
      assert.strictEqual(problem.kind, "unexpected")
      assert.deepStrictEqual(seen, [`${new URL(address).host} Bearer secret-token`])
      assert.strictEqual(asks[0]?.host, new URL(address).hostname)
    })
  )

  it.live("asks for a server's identity", () =>
    Effect.gen(function* () {
      const { proxy } = yield* torBefore((_, response) => response.end(JSON.stringify(serverIdentity)))
      assert.deepStrictEqual(yield* fetchServerIdentity({ address, proxy }), serverIdentity)
    })
  )

  it.live("is refused for an onion address where there is none, and nothing is looked up", () =>
    Effect.gen(function* () {
      const problem = yield* Effect.flip(fetchServerIdentity({ address, proxy: null }))
      assert.strictEqual(problem.kind, "unreachable")
      assert.match(problem.message, /it is an onion address: name a Tor .*--proxy socks5h:/)
    })
  )

  it.live("says what the proxy said", () =>
    Effect.gen(function* () {
      const socks = yield* socksServer(() => ({ reply: 0xf0 }))
      const at = "port" in socks.endpoint ? socks.endpoint.port : 0
      const proxy: UpstreamProxy = { kind: "socks5", host: "127.0.0.1", port: at, credentials: null }
      const problem = yield* Effect.flip(fetchServerIdentity({ address, proxy }))
      assert.match(problem.message, /no onion service is published there/)
    })
  )
})

describe("fetch over a transport", () => {
  const asked = (answer: RequestListener, use: (ask: typeof fetch, origin: string) => Promise<void>) =>
    Effect.gen(function* () {
      const port = yield* webServer(answer)
      const transport = yield* httpTransport({ routes: proxyRoutes(null) })
      yield* Effect.promise(() => use(fetchOver(transport), `http://127.0.0.1:${port}`))
    })

  it.live("sends method, query, headers and body", () =>
    asked(
      (request, response) => {
        const parts: Array<Buffer> = []
        request.on("data", (part: Buffer) => parts.push(part))
        request.on("end", () =>
          response.end(`${request.method} ${request.url} ${request.headers["x-a"]} ${Buffer.concat(parts)}`)
        )
      },
      async (ask, origin) => {
        const init = { method: "PUT", headers: { "x-a": "b" }, body: "words" }
        const response = await ask(`${origin}/path?a=1`, init)
        assert.strictEqual(await response.text(), "PUT /path?a=1 b words")
      }
    )
  )

  it.live("takes answers without a body, follows nobody elsewhere, and ends when it is told to", () =>
    asked(
      (request, response) => {
        if (request.url === "/empty") response.writeHead(204).end()
        else if (request.url === "/away") response.writeHead(302, { location: "http://192.0.2.1" }).end()
      },
      async (ask, origin) => {
        const empty = await ask(`${origin}/empty`)
        assert.strictEqual(empty.status, 204)
        const away = await ask(`${origin}/away`).catch((error: Error) => error)
        assert.match(String(away instanceof Error && away.cause), /redirect/)
        const signal = AbortSignal.timeout(50)
        const late = await ask(`${origin}/never`, { signal }).catch((error: Error) => error)
        assert.instanceOf(late, Error)
      }
    )
  )
})

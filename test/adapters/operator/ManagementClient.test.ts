/** The client's words for everything that can go wrong between it and a server, with real sockets. */
import { createServer, type RequestListener } from "node:http"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import {
  fetchServerIdentity,
  ManagementClient,
  managementClient,
  type ServerProblem
} from "../../../src/adapters/operator/ManagementClient.ts"
import { serverIdentity } from "../../support/operators.ts"

/** A server on a free port that answers every request in one way, as long as the effect runs. */
const answering = (listener: RequestListener) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly address: string; readonly close: () => void }>((resume) => {
      const server = createServer(listener)
      server.listen(0, "127.0.0.1", () => {
        const bound = server.address()
        const port = bound !== null && typeof bound === "object" ? bound.port : 0
        const close = () => {
          server.closeAllConnections()
          server.close()
        }
        resume(Effect.succeed({ address: `http://127.0.0.1:${port}`, close }))
      })
    }),
    ({ close }) => Effect.sync(close)
  ).pipe(Effect.map(({ address }) => address))

const json =
  (status: number, body: unknown): RequestListener =>
  (_, response) => {
    response.writeHead(status, { "content-type": "application/json" })
    response.end(JSON.stringify(body))
  }

const status = (address: string, timeoutMs?: number) =>
  Effect.flatMap(ManagementClient, (client) =>
    client.call("ask for the status", (api) => api.server.status(), timeoutMs)
  ).pipe(Effect.provide(managementClient({ address, proxy: null, token: Redacted.make("secret-token") })))

const problemOf = (listener: RequestListener, timeoutMs?: number): Effect.Effect<ServerProblem, unknown> =>
  Effect.scoped(
    Effect.flatMap(answering(listener), (address) => Effect.flip(status(address, timeoutMs)))
  ) as Effect.Effect<ServerProblem, unknown>

describe("the management client", () => {
  it.live("sends the token, and gives the answer", () =>
    Effect.scoped(
      Effect.gen(function* () {
        let authorization: string | undefined
        const body = {
          server: serverIdentity.server,
          software: "postern/0.1.0",
          time_ms: 1,
          started_at_ms: 0,
          root_version: null,
          root_expires_at_ms: null,
          devices: {},
          jobs: {},
          storage: null,
          onion: null,
          messaging: null,
          messaging_problem: null,
          restored: null
        }
        const address = yield* answering((request, response) => {
          authorization = request.headers.authorization
          json(200, body)(request, response)
        })
        assert.deepStrictEqual(yield* status(address), body)
        assert.strictEqual(authorization, "Bearer secret-token")
      })
    )
  )

  const cases: ReadonlyArray<readonly [string, RequestListener, ServerProblem["kind"], RegExp]> = [
    [
      "a wrong token",
      json(401, { _tag: "Unauthorized", message: "no" }),
      "unauthorized",
      /does not accept the token\. Log in again: postern login --server http/
    ],
    [
      "a role that may not",
      json(403, { _tag: "Forbidden", message: "it is for viewers" }),
      "forbidden",
      /role does not allow it \(it is for viewers\)/
    ],
    [
      "an overloaded server",
      json(503, { _tag: "Unavailable", message: "busy" }),
      "unavailable",
      /cannot at the moment \(busy\)\. Try again later/
    ],
    [
      "an answer of another shape",
      json(200, { hello: "world" }),
      "unexpected",
      /another shape|something else/
    ],
    [
      "a page of somebody else's",
      (_, response) => void response.end("<html>"),
      "unexpected",
      /Is it a Postern server/
    ],
    [
      "a redirection",
      (_, response) => void response.writeHead(302, { location: "http://127.0.0.1:1/" }).end(),
      "unreachable",
      /was not reached/
    ],
    [
      "an endless answer",
      (_, response) => endless(response),
      "unexpected",
      /larger than 67108864 bytes|something else/
    ]
  ]
  it.live.each(cases)("says what to do about %s", ([, listener, kind, message]) =>
    Effect.gen(function* () {
      const problem = yield* problemOf(listener)
      assert.strictEqual(problem.kind, kind, problem.message)
      assert.match(problem.message, message)
      assert.match(problem.message, /^Could not ask for the status: /)
      assert.notInclude(problem.message, "secret-token")
    })
  )

  it.live("gives up on a server that never answers", () =>
    Effect.gen(function* () {
      const problem = yield* problemOf(() => undefined, 300)
      assert.strictEqual(problem.kind, "unreachable")
      assert.match(problem.message, /gave no answer within 0\.3 s/)
    })
  )

  it.live("says that nobody listens", () =>
    Effect.gen(function* () {
      const address = yield* Effect.scoped(answering(() => undefined))
      const problem = yield* Effect.flip(status(address))
      assert.strictEqual((problem as ServerProblem).kind, "unreachable")
      assert.match(
        (problem as ServerProblem).message,
        /was not reached \(.*ECONNREFUSED.*\)\. Is the server running/
      )
    })
  )
})

/** Writes until nobody reads any more. */
const endless = (response: Parameters<RequestListener>[1]): void => {
  response.writeHead(200, { "content-type": "application/json" })
  const block = Buffer.alloc(1024 * 1024, " ")
  const more = (): void => {
    while (!response.destroyed && response.write(block));
  }
  response.on("drain", more)
  more()
}

describe("a server's identity", () => {
  it.live("is taken as it is told, before there is any trust", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const address = yield* answering(json(200, serverIdentity))
        assert.deepStrictEqual(yield* fetchServerIdentity({ address, proxy: null }), serverIdentity)
      })
    )
  )

  it.live("is nothing else", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const address = yield* answering(json(404, {}))
        const problem = yield* Effect.flip(fetchServerIdentity({ address, proxy: null }))
        assert.match(problem.message, /something else \(HTTP 404\)\. Is it a Postern server/)
      })
    )
  )
})

/**
 * `fetch` by a transport of ours, for those who must go through a proxy: names go to the proxy, never to a resolver here.
 *
 * @module
 */
import { Effect, Exit, Scope, Stream } from "effect"
import type { Transport, TransportResponse } from "../http/Transport.ts"

/** Whoever calls has a limit of his own, which is shorter. */
const responseTimeoutMs = 600_000

const bodiless: ReadonlySet<number> = new Set([204, 205, 304])

const responseOf = ({ body, headers, status }: TransportResponse, close: Effect.Effect<void>) => {
  const init = { status, headers: { ...headers } }
  if (!bodiless.has(status)) return new Response(Stream.toReadableStream(Stream.ensuring(body, close)), init)
  Effect.runFork(close)
  return new Response(null, init)
}

/** Follows no redirect: that would carry a token elsewhere. */
export const fetchOver =
  (transport: Transport): typeof fetch =>
  async (input, init) => {
    const asked = new Request(input, init)
    const url = new URL(asked.url)
    const scope = Scope.makeUnsafe()
    const close = Scope.close(scope, Exit.void)
    const sending = transport.send({
      origin: url.origin,
      authority: url.host,
      method: asked.method,
      path: url.pathname,
      query: url.search,
      headers: Object.fromEntries(asked.headers),
      body: new Uint8Array(await asked.arrayBuffer()),
      responseTimeoutMs
    })
    const answer = await Effect.runPromise(Effect.result(Scope.provide(sending, scope)), {
      signal: asked.signal
    })
    if (answer._tag === "Success" && (answer.success.status < 300 || answer.success.status >= 400))
      return responseOf(answer.success, close)
    await Effect.runPromise(close)
    const reason = answer._tag === "Success" ? "it answers with a redirect" : answer.failure.reason
    throw new TypeError("fetch failed", { cause: new Error(reason) })
  }

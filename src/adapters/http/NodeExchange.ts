/** Between node:http and our plain requests and answers: bodies in within bounds, answers out with back pressure. */
import type { IncomingMessage, ServerResponse } from "node:http"
import { Effect, Stream } from "effect"
import { concatBytes } from "../../crypto/Bytes.ts"
import type { ApiRequest, ApiResponse, StreamedBody } from "./Exchange.ts"

/** Splits the target at the first question mark; both parts as sent. */
export const splitTarget = (target: string): { readonly path: string; readonly query: string } => {
  const at = target.indexOf("?")
  return at < 0 ? { path: target, query: "" } : { path: target.slice(0, at), query: target.slice(at) }
}

/** What is known of a request before its body. A header sent twice is joined, so that signatures see both. */
export const headOf = (incoming: IncomingMessage): Omit<ApiRequest, "body"> => {
  const headers: Record<string, string> = {}
  const { rawHeaders } = incoming
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = (rawHeaders[index] as string).toLowerCase()
    const value = rawHeaders[index + 1] as string
    const before = Object.hasOwn(headers, name) ? headers[name] : undefined
    headers[name] = before === undefined ? value : `${before}, ${value}`
  }
  return {
    method: incoming.method ?? "GET",
    authority: (headers["host"] ?? "").toLowerCase(),
    ...splitTarget(incoming.url ?? "/"),
    headers
  }
}

/** How reading a body ended: the bytes, more than allowed, no room left for all bodies together, or cut off. */
export type BodyRead = Uint8Array | "too_large" | "no_room" | "cut_off"

/** Room for bodies, shared by all requests in work. */
export interface Room {
  readonly take: (bytes: number) => boolean
  readonly give: (bytes: number) => void
  readonly freeBytes: () => number
}

export const makeRoom = (totalBytes: number): Room => {
  let free = totalBytes
  return {
    take: (bytes) => {
      if (bytes > free) return false
      free -= bytes
      return true
    },
    give: (bytes) => {
      free += bytes
    },
    freeBytes: () => free
  }
}

/**
 * Reads the body, at most `maximumBytes`. Calls back once; `held` says how much room is to be given back when the
 * request is done. What is too large is not read to its end.
 */
export const readBody = (
  incoming: IncomingMessage,
  maximumBytes: number,
  room: Room,
  done: (body: BodyRead, heldBytes: number) => void
): void => {
  const parts: Array<Uint8Array> = []
  let held = 0
  let ended = false
  const end = (body: BodyRead) => {
    if (ended) return
    ended = true
    incoming.off("data", onData)
    if (typeof body === "string") incoming.pause()
    done(body, held)
  }
  const onData = (part: Uint8Array) => {
    if (held + part.length > maximumBytes) return end("too_large")
    if (!room.take(part.length)) return end("no_room")
    held += part.length
    parts.push(part)
  }
  const announced = Number(incoming.headers["content-length"] ?? 0)
  if (announced > maximumBytes) return end("too_large")
  incoming.on("data", onData)
  incoming.on("end", () => end(concatBytes(...parts)))
  incoming.on("close", () => end("cut_off"))
  incoming.on("error", () => end("cut_off"))
}

const drained = (outgoing: ServerResponse): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const go = () => {
      outgoing.off("drain", go)
      outgoing.off("close", go)
      resume(Effect.void)
    }
    outgoing.on("drain", go)
    outgoing.on("close", go)
    return Effect.sync(() => {
      outgoing.off("drain", go)
      outgoing.off("close", go)
    })
  })

const sendStream = (outgoing: ServerResponse, body: StreamedBody): Effect.Effect<void> =>
  body.bytes.pipe(
    Stream.runForEach((part) =>
      Effect.suspend(() => (outgoing.destroyed || outgoing.write(part) ? Effect.void : drained(outgoing)))
    ),
    Effect.andThen(Effect.sync(() => outgoing.end())),
    // Too late for another status: the receiver sees a body that is cut short, and asks for the rest.
    Effect.catchCause((cause) =>
      Effect.andThen(
        Effect.sync(() => outgoing.destroy()),
        Effect.logWarning("a streamed answer was cut off", cause)
      )
    )
  )

/** Sends an answer. `close` ends the connection behind it. */
export const send = (outgoing: ServerResponse, response: ApiResponse, close: boolean): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (outgoing.destroyed || outgoing.headersSent) return Effect.void
    const { body, headers, status } = response
    const length = body instanceof Uint8Array ? body.length : body.lengthBytes
    outgoing.writeHead(status, {
      ...headers,
      // A 304 speaks of the body that it leaves out.
      ...(status === 304 ? {} : { "content-length": length }),
      ...(close ? { connection: "close" } : {})
    })
    if (!(body instanceof Uint8Array)) return sendStream(outgoing, body)
    outgoing.end(body)
    return Effect.void
  })

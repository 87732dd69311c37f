/** Where a gateway listens: a port, or a Unix socket that only this user reaches. */
import { chmodSync } from "node:fs"
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import { Effect, Schema } from "effect"
import { clearWay, requireSocketPath } from "../ControlSocket.ts"
import { errorText } from "../files/AtomicFile.ts"

/** Port 0 takes a free one. A socket's folder must be private to this user. */
export type ListenAt = { readonly host: string; readonly port: number } | { readonly path: string }

/** It could not be opened. */
export class GatewayError extends Schema.TaggedError<GatewayError>()("GatewayError", {
  place: Schema.String,
  reason: Schema.String,
  /** The setting that names the port. */
  setting: Schema.optionalKey(Schema.String)
}) {
  override get message(): string {
    const mend = this.reason.includes("EADDRINUSE")
      ? `. Another program listens there: stop it, or name another port with ${this.setting ?? "--port"}`
      : ""
    return `cannot listen on ${this.place}: ${this.reason}${mend}`
  }
}

const placeText = (at: ListenAt): string => ("path" in at ? at.path : `${at.host}:${at.port}`)

const originOf = ({ address, family, port }: AddressInfo): string =>
  `http://${family === "IPv6" ? `[${address}]` : address}:${port}`

/** Opens it, and gives what it is reached by: an origin, or `unix:` and a path. */
const bind = (server: Server, at: ListenAt): Effect.Effect<string, GatewayError> =>
  Effect.callback((resume) => {
    const failing = (error: unknown) =>
      resume(Effect.fail(new GatewayError({ place: placeText(at), reason: errorText(error) })))
    server.once("error", failing)
    server.listen(at, () => {
      server.off("error", failing)
      try {
        if ("path" in at) chmodSync(at.path, 0o600)
        const bound = server.address()
        resume(Effect.succeed("path" in at ? `unix:${at.path}` : originOf(bound as AddressInfo)))
      } catch (error) {
        failing(error)
      }
    })
  })

/** The same; what a crash left at a socket's path is cleared away first. */
export const listen = (server: Server, at: ListenAt): Effect.Effect<string, GatewayError> =>
  "path" in at
    ? Effect.andThen(requireSocketPath(at.path), clearWay(at.path)).pipe(
        Effect.mapError(({ reason }) => new GatewayError({ place: at.path, reason })),
        Effect.andThen(bind(server, at))
      )
    : bind(server, at)

/**
 * Tries once whether the port can be opened, so that a wrong one is said at the start and at once; the actor that holds the
 * listener later would try again and again.
 */
export const requireFreePort = (
  at: { readonly host: string; readonly port: number },
  setting: string
): Effect.Effect<void, GatewayError> =>
  Effect.suspend(() => {
    const probe = createServer()
    const close = Effect.callback<void>((resume) => {
      probe.close(() => resume(Effect.void))
    })
    return Effect.andThen(bind(probe, at), close)
  }).pipe(Effect.mapError(({ place, reason }) => new GatewayError({ place, reason, setting })))

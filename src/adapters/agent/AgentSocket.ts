/**
 * The agent's ear on its own machine: a Unix socket (0600) in the state folder, which speaks as `schemas/AgentLocal` says.
 * Each connection is bounded: a request's length, requests under way, and what waits to be read by the other side.
 *
 * @module
 */
import { createServer, type Socket } from "node:net"
import { join } from "node:path"
import { Cause, Effect, Option, Result, Schema, Scope } from "effect"
import { type ActorContext, Behaviour } from "../../kernel/index.ts"
import type { AgentDesk, AgentListener } from "../../ports/AgentDesk.ts"
import {
  AgentLocalLimits,
  type AgentTrouble,
  type AgentTroubleCode,
  LocalRequest
} from "../../schemas/AgentLocal.ts"
import { Count } from "../../schemas/Ids.ts"
import { GatewayProtocol } from "../../schemas/protocols/Gateway.ts"
import { type ControlError, clearWay, lines, listen, requireSocketPath } from "../ControlSocket.ts"
import { shapeReason } from "./LocalChecks.ts"

export const agentSocketPath = (stateFolder: string): string => join(stateFolder, "agent.sock")

/** Of what the other side has not read yet, so much may wait before no more requests are read. */
const unreadBytes = 1024 * 1024

/** How long the other side has to read why it is hung up on. */
const hangUpMs = 1_000

/** So many are told at once that all connections are taken; more are hung up on without a word. */
const turnedAway = 32

const decodeRequest = Schema.decodeUnknownResult(Schema.fromJsonString(LocalRequest), {
  onExcessProperty: "error"
})
const decodeHead = Schema.decodeUnknownOption(
  Schema.fromJsonString(Schema.Struct({ id: Count, request: Schema.optionalKey(Schema.Unknown) }))
)

const refusal = (id: number | null, code: AgentTroubleCode, error: string) =>
  JSON.stringify({ id, ok: false, code, error })

/** The answer to what is no request; under its number, where it has one. */
const unreadable = (line: string, error: { readonly message: string }): string => {
  const head = Option.getOrUndefined(decodeHead(line))
  const code = head?.request === "send" ? "malformed_letter" : "malformed"
  return refusal(head?.id ?? null, code, `the request cannot be read: ${shapeReason(error)}`)
}

/** What one connection may ask. The first `take` makes it a listener. */
const makeClerk = (desk: AgentDesk, scope: Scope.Scope) => {
  const listener = Effect.runSync(Effect.cached(Scope.provide(desk.listen, scope)))
  const withListener = <A>(use: (listener: AgentListener) => Effect.Effect<A, AgentTrouble>) =>
    Effect.flatMap(listener, use)
  return (asked: LocalRequest): Effect.Effect<unknown, AgentTrouble> => {
    switch (asked.request) {
      case "send": {
        const { id: _id, request: _request, ...letter } = asked
        return desk.send(letter)
      }
      case "unsent":
        return desk.unsent(asked.message)
      case "ping":
        return desk.ping(asked.to)
      case "peers":
        return desk.peers
      case "report":
        return desk.report
      case "show":
        return desk.show({ visible: asked.visible, edge_devices: asked.edge_devices })
      case "take":
        return withListener(({ take }) => take(asked.maximum, asked.wait_ms))
      case "done":
        return withListener(({ done }) => done(asked.places))
    }
  }
}

/** The line that answers a line. */
const makeAnswerer = (desk: AgentDesk, scope: Scope.Scope) => {
  const clerk = makeClerk(desk, scope)
  return (line: string): Effect.Effect<string> => {
    const read = decodeRequest(line)
    if (Result.isFailure(read)) return Effect.succeed(unreadable(line, read.failure))
    const { id } = read.success
    return clerk(read.success).pipe(
      Effect.map((value) => {
        const text = JSON.stringify({ id, ok: true, value: value ?? null })
        return text.length > AgentLocalLimits.answerBytes
          ? refusal(id, "failed", "the answer is too large")
          : text
      }),
      Effect.catch(({ code, reason }) => Effect.succeed(refusal(id, code, reason))),
      Effect.catchCause((cause) =>
        Effect.succeed(
          Cause.hasInterruptsOnly(cause)
            ? refusal(id, "gone", "the program that runs the agent is ending")
            : refusal(id, "failed", "the agent failed at this request")
        )
      )
    )
  }
}

/** Reads requests of a connection and answers them, some at a time; ends with the connection. */
const serveConnection = (socket: Socket, desk: AgentDesk) =>
  Effect.gen(function* () {
    const scope = yield* Effect.scope
    const answer = makeAnswerer(desk, scope)
    const run = Effect.runForkWith(yield* Effect.context<never>())
    const waiting: Array<string> = []
    let underWay = 0
    const isBusy = () => underWay >= AgentLocalLimits.underWay || socket.writableLength > unreadBytes
    const pump = (): void => {
      while (!socket.destroyed && !isBusy()) {
        const line = waiting.shift()
        if (line === undefined) break
        underWay++
        run(
          Effect.map(answer(line), (text) => {
            underWay--
            if (socket.writable) socket.write(`${text}\n`, pump)
            pump()
          }).pipe(Effect.forkIn(scope))
        )
      }
      if (waiting.length === 0 && !isBusy()) socket.resume()
      else socket.pause()
    }
    yield* Effect.callback<void>((resume) => {
      socket.on("error", () => socket.destroy())
      socket.on("close", () => resume(Effect.void))
      socket.on("drain", pump)
      lines(
        socket,
        AgentLocalLimits.requestBytes,
        (line) => {
          waiting.push(line)
          pump()
        },
        () => {
          waiting.length = 0
          socket.end(`${refusal(null, "malformed", "the request is too long")}\n`)
          // Whoever does not hang up is hung up on.
          setTimeout(() => socket.destroy(), hangUpMs).unref()
        }
      )
      return Effect.sync(() => void socket.destroy())
    })
  }).pipe(Effect.scoped)

/** Says that there is no room for a connection, and ends it. */
const turnAway = (socket: Socket) =>
  Effect.callback<void>((resume) => {
    socket.on("error", () => socket.destroy())
    socket.on("close", () => resume(Effect.void))
    // Whoever cannot write its request would not read why.
    socket.resume()
    const why = `${AgentLocalLimits.connections} connections stand already, each a program or a loop over messages: end one`
    socket.end(`${refusal(null, "too_many_listeners", why)}\n`)
    return Effect.sync(() => void socket.destroy())
  }).pipe(Effect.timeoutOption(hangUpMs), Effect.asVoid)

/** Serves so many connections as there may be, and turns others away. */
const makePorter = (desk: AgentDesk) => {
  let served = 0
  return (socket: Socket): Effect.Effect<void> => {
    if (served >= AgentLocalLimits.connections) return turnAway(socket)
    served++
    return Effect.ensuring(
      serveConnection(socket, desk),
      Effect.sync(() => served--)
    )
  }
}

/** Serves an agent's desk for as long as the scope lasts; then the socket is gone. */
export const serveAgent = Effect.fnUntraced(function* (options: {
  readonly stateFolder: string
  readonly desk: AgentDesk
}): Effect.fn.Return<void, ControlError, Scope.Scope> {
  const path = agentSocketPath(options.stateFolder)
  yield* requireSocketPath(path)
  const scope = yield* Effect.scope
  const run = Effect.runForkWith(yield* Effect.context<never>())
  yield* clearWay(path)
  const serve = makePorter(options.desk)
  const server = createServer((socket) => {
    run(Effect.forkIn(serve(socket), scope))
  })
  server.maxConnections = AgentLocalLimits.connections + turnedAway
  yield* Effect.acquireRelease(listen(server, path), () =>
    Effect.callback<void>((resume) => {
      // Closing removes the socket's file; the connections end with the scope.
      server.close()
      resume(Effect.void)
    })
  )
  server.on("error", () => undefined)
})

/** The socket as an actor: opened in its own life, so that a restart opens it again. A socket in use is a failed start. */
export const agentGateway = <R>(options: {
  readonly stateFolder: string
  /** Made in each life, over the actors that it may ask. */
  readonly desk: (context: Pick<ActorContext<never>, "ref">) => Effect.Effect<AgentDesk, never, R>
}) =>
  Behaviour.make(GatewayProtocol, (context) =>
    Effect.gen(function* () {
      const desk = yield* options.desk(context as never)
      yield* serveAgent({ stateFolder: options.stateFolder, desk })
      return context.handlers({
        Address: () => Effect.succeed(agentSocketPath(options.stateFolder)),
        Lost: () => context.stopSelf
      })
    })
  )

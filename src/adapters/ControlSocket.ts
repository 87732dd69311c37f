/**
 * A running program's ear on its own machine: a Unix socket (0600) in the state folder, for `postern ps` and the like. A
 * request is one line of JSON, `{"request":"inspect"}`; the answer is one line too, `{"ok":true,"value":…}` or
 * `{"ok":false,"error":"…"}`. Several may follow each other on one connection.
 *
 * @module
 */
import { chmodSync, lstatSync, rmSync } from "node:fs"
import { connect, createServer, type Server, type Socket } from "node:net"
import { join } from "node:path"
import { Duration, Effect, Exit, Schema, type Scope } from "effect"
import { errorCode, errorText } from "./files/AtomicFile.ts"

/**
 * - `not_running`: nobody listens there
 * - `in_use`: another program listens there already
 * - `timed_out`, `malformed`: what listens does not answer, or not so
 * - `refused`: it answered that it will not
 * - `failed`: the socket could not be made or used
 */
export class ControlError extends Schema.TaggedError<ControlError>()("ControlError", {
  path: Schema.String,
  code: Schema.Literals(["not_running", "in_use", "timed_out", "malformed", "refused", "failed"]),
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.path}: ${this.reason}`
  }
}

/** What can be asked, each answered with a JSON value. */
export type ControlHandlers = Readonly<Record<string, Effect.Effect<unknown>>>

const requestBytes = 4 * 1024
const answerBytes = 8 * 1024 * 1024
const maximumConnections = 16
const idleMs = 10_000
const handlerMs = 5_000
/** What fits into the kernel's address of a Unix socket. */
const pathBytes = 107

export const controlSocketPath = (stateFolder: string): string => join(stateFolder, "control.sock")

const Request = Schema.fromJsonString(Schema.Struct({ request: Schema.String }))
const Answer = Schema.fromJsonString(
  Schema.Union([
    Schema.Struct({ ok: Schema.Literal(true), value: Schema.Unknown }),
    Schema.Struct({ ok: Schema.Literal(false), error: Schema.String })
  ])
)
const decodeRequest = Schema.decodeUnknownExit(Request)
const decodeAnswer = Schema.decodeUnknownExit(Answer)

/** Calls `onLine` for each line; `onTooLong` when one exceeds the bound, after which nothing more is kept or told. */
export const lines = (
  socket: Socket,
  maximumBytes: number,
  onLine: (line: string) => void,
  onTooLong: () => void
): void => {
  let parts: Array<Buffer> = []
  let heldBytes = 0
  let isOver = false
  const tooLong = (): void => {
    isOver = true
    parts = []
    onTooLong()
  }
  socket.on("data", (data: Buffer) => {
    if (isOver) return
    let start = 0
    for (let end = data.indexOf(0x0a); end >= 0; end = data.indexOf(0x0a, start)) {
      const line = Buffer.concat([...parts, data.subarray(start, end)])
      parts = []
      heldBytes = 0
      start = end + 1
      if (line.length > maximumBytes) return tooLong()
      onLine(line.toString("utf8"))
    }
    parts.push(data.subarray(start))
    heldBytes += data.length - start
    if (heldBytes > maximumBytes) tooLong()
  })
}

const answerTo = (handlers: ControlHandlers, line: string): Effect.Effect<string> => {
  const refuse = (error: string) => JSON.stringify({ ok: false, error })
  const request = decodeRequest(line)
  if (Exit.isFailure(request)) return Effect.succeed(refuse("the request is not a line of the expected JSON"))
  const name = request.value.request
  const handler = Object.hasOwn(handlers, name) ? handlers[name] : undefined
  if (handler === undefined)
    return Effect.succeed(refuse(`there is no request ${JSON.stringify(name.slice(0, 64))}`))
  return handler.pipe(
    Effect.timeoutOption(Duration.millis(handlerMs)),
    Effect.map((value) => {
      if (value._tag === "None") return refuse("the program did not answer in time")
      const text = JSON.stringify({ ok: true, value: value.value ?? null })
      return text.length > answerBytes ? refuse("the answer is too large") : text
    }),
    Effect.catchCause(() => Effect.succeed(refuse("the program failed at this request")))
  )
}

/** Whether somebody listens at a path. */
const isListening = (path: string): Effect.Effect<boolean> =>
  Effect.callback<boolean>((resume) => {
    const socket = connect(path)
    socket.once("connect", () => {
      socket.destroy()
      resume(Effect.succeed(true))
    })
    socket.once("error", () => resume(Effect.succeed(false)))
    return Effect.sync(() => void socket.destroy())
  })

/** Fails where a socket cannot have this path. */
export const requireSocketPath = (path: string): Effect.Effect<void, ControlError> => {
  if (Buffer.byteLength(path) <= pathBytes) return Effect.void
  const reason = `the path has more than ${pathBytes} bytes, which sockets cannot have: use a shorter state folder`
  return Effect.fail(new ControlError({ path, code: "failed", reason }))
}

/** Removes what a program that crashed left behind; never one that is in use, nor anything but a socket. */
export const clearWay = Effect.fnUntraced(function* (path: string) {
  const failed = (reason: string) => new ControlError({ path, code: "failed", reason })
  const found = yield* Effect.try({
    try: () => lstatSync(path, { throwIfNoEntry: false }),
    catch: (error) => failed(errorText(error))
  })
  if (found === undefined) return
  if (!found.isSocket()) return yield* failed("something that is not a socket stands there: move it away")
  if (yield* isListening(path)) {
    return yield* new ControlError({ path, code: "in_use", reason: "another program listens there" })
  }
  yield* Effect.try({ try: () => rmSync(path, { force: true }), catch: (error) => failed(errorText(error)) })
})

export const listen = (server: Server, path: string): Effect.Effect<void, ControlError> =>
  Effect.callback<void, ControlError>((resume) => {
    const failed = (error: unknown) =>
      resume(Effect.fail(new ControlError({ path, code: "failed", reason: errorText(error) })))
    server.once("error", failed)
    server.listen(path, () => {
      server.off("error", failed)
      try {
        // The folder is 0700 already; this is for those who look at the file alone.
        chmodSync(path, 0o600)
        resume(Effect.void)
      } catch (error) {
        failed(error)
      }
    })
  })

/** Answers requests for as long as the scope lasts; then the socket is gone. */
export const serveControl = Effect.fnUntraced(function* (options: {
  readonly stateFolder: string
  readonly handlers: ControlHandlers
}): Effect.fn.Return<void, ControlError, Scope.Scope> {
  const path = controlSocketPath(options.stateFolder)
  yield* requireSocketPath(path)
  const run = Effect.runForkWith(yield* Effect.context<never>())
  const sockets = new Set<Socket>()
  const serve = (socket: Socket): void => {
    sockets.add(socket)
    socket.setTimeout(idleMs, () => socket.destroy())
    socket.on("error", () => socket.destroy())
    socket.on("close", () => sockets.delete(socket))
    const answer = (line: string): void => {
      // One at a time: a second line waits until the first is answered.
      socket.pause()
      run(
        Effect.map(answerTo(options.handlers, line), (text) => {
          socket.write(`${text}\n`)
          socket.resume()
        })
      )
    }
    lines(socket, requestBytes, answer, () => socket.destroy())
  }
  yield* clearWay(path)
  const server = createServer(serve)
  server.maxConnections = maximumConnections
  yield* Effect.acquireRelease(listen(server, path), () =>
    Effect.callback<void>((resume) => {
      // Closing removes the socket's file.
      server.close(() => resume(Effect.void))
      for (const socket of sockets) socket.destroy()
    })
  )
  server.on("error", () => undefined)
})

/** Asks a running program once. */
export const askControl = (options: {
  readonly stateFolder: string
  readonly request: string
  readonly timeoutMs?: number
}): Effect.Effect<unknown, ControlError> => {
  const path = controlSocketPath(options.stateFolder)
  const timeoutMs = options.timeoutMs ?? handlerMs + 2_000
  const fail = (code: ControlError["code"], reason: string) =>
    Effect.fail(new ControlError({ path, code, reason }))
  return Effect.callback<unknown, ControlError>((resume) => {
    const socket = connect(path)
    const finish = (outcome: Effect.Effect<unknown, ControlError>): void => {
      socket.destroy()
      resume(outcome)
    }
    socket.on("connect", () => socket.write(`${JSON.stringify({ request: options.request })}\n`))
    lines(
      socket,
      answerBytes + 1024,
      (line) => {
        const answer = decodeAnswer(line)
        if (Exit.isFailure(answer))
          return finish(fail("malformed", "what listens there does not speak as Postern does"))
        finish(answer.value.ok ? Effect.succeed(answer.value.value) : fail("refused", answer.value.error))
      },
      () => finish(fail("malformed", "the answer is too large"))
    )
    socket.on("error", (error) => {
      const isAbsent = ["ENOENT", "ECONNREFUSED"].includes(errorCode(error) ?? "")
      finish(
        isAbsent
          ? fail("not_running", "no Postern program runs on this state folder")
          : fail("failed", errorText(error))
      )
    })
    socket.on("close", () => finish(fail("failed", "the connection was closed before the answer came")))
    return Effect.sync(() => void socket.destroy())
  }).pipe(
    Effect.timeoutOrElse({
      duration: Duration.millis(timeoutMs),
      orElse: () => fail("timed_out", `there was no answer within ${timeoutMs} ms`)
    })
  )
}

/**
 * A connection to a tor's control port or control socket: commands with a time limit each, events, and the news of its
 * end. It authenticates with nothing (a socket in a folder of our own needs nothing; a port may not do with it), with the
 * safe cookie, or with a password, as tor offers. Specification: tor's control-spec.
 *
 * @module
 */
import { createHmac, timingSafeEqual } from "node:crypto"
import { closeSync, constants, fstatSync, openSync, readFileSync } from "node:fs"
import { connect, type Socket } from "node:net"
import { Deferred, Duration, Effect, Result, Schema, type Scope } from "effect"
import type { Entropy } from "../../ports/Entropy.ts"
import { endpointText, type TorEndpoint } from "../../schemas/TorSettings.ts"
import { errorText } from "../files/AtomicFile.ts"
import { type ControlReply, controlQuoted, controlWords, makeReplyReader } from "./ControlReplies.ts"

/**
 * - `unreachable`: nobody listens there, or does not let us
 * - `not_authenticated`: tor does not know us
 * - `refused`: tor answered with an error; `status` and `reason` are its own
 * - `timed_out`: no answer in time: tor hangs
 * - `closed`: the connection ended before the answer came
 * - `malformed`: what came is no control protocol, or too much
 * - `unusable`: this command was never sent: it has more than one line, is too long, or too many wait
 */
export class TorControlError extends Schema.TaggedError<TorControlError>()("TorControlError", {
  code: Schema.Literals([
    "unreachable",
    "not_authenticated",
    "refused",
    "timed_out",
    "closed",
    "malformed",
    "unusable"
  ]),
  /** The command's first word only: what follows may be secret. */
  command: Schema.String,
  status: Schema.NullOr(Schema.Int),
  reason: Schema.String
}) {
  override get message(): string {
    const status = this.status === null ? "" : ` (${this.status})`
    return `tor's control connection, ${this.command}: ${this.reason}${status}`
  }
}

/** Something that tor tells unasked. */
export interface TorEvent {
  /** `HS_DESC`, `STATUS_CLIENT` … */
  readonly name: string
  /** What follows the name in the first line. */
  readonly text: string
  /** The lines below the first, if any. */
  readonly lines: ReadonlyArray<string>
}

export interface TorControl {
  /**
   * Sends one command, and gives the lines of its good reply without their codes (the last is usually `OK`); data is
   * joined to its line by line feeds. Default limit: 10 s.
   */
  readonly send: (
    command: string,
    options?: { readonly timeoutMs?: number }
  ) => Effect.Effect<ReadonlyArray<string>, TorControlError>
  /**
   * Calls `handler` for each event of these names, in the order in which tor tells them, until the scope ends. It must be
   * short, must not throw, and must keep what it keeps within bounds.
   */
  readonly subscribe: (
    names: ReadonlyArray<string>,
    handler: (event: TorEvent) => void
  ) => Effect.Effect<void, TorControlError, Scope.Scope>
  /** Ends with the reason when the connection has ended. */
  readonly closed: Effect.Effect<string>
}

export interface ControlOptions {
  readonly endpoint: TorEndpoint
  readonly password?: string
  /** For the safe cookie's challenge: needed where the tor is not our own. */
  readonly entropy?: Entropy["Service"]
  /** Limit for connecting, authentication included. Default 5 s. */
  readonly connectTimeoutMs?: number
}

const connectMs = 5_000
const commandMs = 10_000
const replyBytes = 8 * 1024 * 1024
const commandBytes = 64 * 1024
/** Commands without an answer yet, those included that nobody waits for any more. */
const maximumPending = 64

const fail = (
  code: TorControlError["code"],
  command: string,
  reason: string,
  status: number | null = null
): TorControlError => new TorControlError({ code, command: keywordOf(command), status, reason })

const keywordOf = (command: string): string => /^\+?[A-Za-z_]+/.exec(command)?.[0] ?? "(connect)"

type Answer = Effect.Effect<ReadonlyArray<string>, TorControlError>

/** Sends commands, each with its time limit. */
const makeSend =
  (
    write: (command: string, resume: (answer: Answer) => void) => { resume: (answer: Answer) => void },
    obstacle: (command: string) => TorControlError | undefined
  ): TorControl["send"] =>
  (command, options = {}) =>
    Effect.callback<ReadonlyArray<string>, TorControlError>((resume) => {
      const refused = obstacle(command)
      if (refused !== undefined) return resume(Effect.fail(refused))
      const timeoutMs = options.timeoutMs ?? commandMs
      const finish = (answer: Answer): void => {
        clearTimeout(timer)
        // An answer that nobody waits for keeps its place, and is dropped when it comes.
        place.resume = () => undefined
        resume(answer)
      }
      // Not an Effect's time-out: that would wait where the caller cannot be interrupted.
      const timer = setTimeout(() => {
        finish(Effect.fail(fail("timed_out", command, `tor did not answer within ${timeoutMs} ms: it hangs`)))
      }, timeoutMs)
      const place = write(command, finish)
      return Effect.sync(() => {
        clearTimeout(timer)
        place.resume = () => undefined
      })
    })

/** Commands and their replies, which come in the same order. */
const makeWire = (
  socket: Socket,
  closed: Deferred.Deferred<string>,
  onEvent: (lines: ReadonlyArray<string>) => void
) => {
  const pending: Array<{ readonly command: string; resume: (answer: Answer) => void }> = []
  let ended: string | undefined

  const end = (code: "closed" | "malformed", reason: string): void => {
    if (ended !== undefined) return
    ended = reason
    socket.destroy()
    Deferred.doneUnsafe(closed, Effect.succeed(reason))
    for (const { command, resume } of pending.splice(0)) resume(Effect.fail(fail(code, command, reason)))
  }

  const onReply = ({ lines, status }: ControlReply): void => {
    if (status === 650) return onEvent(lines)
    const asked = pending.shift()
    if (asked === undefined) return end("malformed", "tor answered what nobody asked")
    const isGood = status >= 200 && status < 300
    const refused = () => fail("refused", asked.command, lines.join("; ").slice(0, 2_000), status)
    asked.resume(isGood ? Effect.succeed(lines) : Effect.fail(refused()))
  }

  socket.on(
    "data",
    makeReplyReader({ maximumBytes: replyBytes, onReply, onBroken: (reason) => end("malformed", reason) })
  )
  socket.on("error", (error) => end("closed", errorText(error)))
  socket.on("close", () => end("closed", "tor closed the control connection"))

  const write = (command: string, resume: (answer: Answer) => void) => {
    const place = { command, resume }
    pending.push(place)
    socket.write(`${command}\r\n`)
    return place
  }

  /** Why a command is not sent at all. */
  const obstacle = (command: string): TorControlError | undefined => {
    if (ended !== undefined) return fail("closed", command, ended)
    if (/[\r\n\0]/.test(command)) return fail("unusable", command, "the command has more than one line")
    if (Buffer.byteLength(command) > commandBytes) return fail("unusable", command, "the command is too long")
    return pending.length >= maximumPending
      ? fail("unusable", command, "too many commands wait for tor's answer")
      : undefined
  }

  const send = makeSend(write, obstacle)

  /** Sends what nobody waits for. */
  const tell = (command: string): void => {
    if (obstacle(command) === undefined) write(command, () => undefined)
  }

  return { send, tell, end: (reason: string) => end("closed", reason) }
}

/** A connection with those who listen to its events. */
const makeExchange = (socket: Socket, closed: Deferred.Deferred<string>) => {
  const handlers = new Set<{
    readonly names: ReadonlySet<string>
    readonly handle: (event: TorEvent) => void
  }>()
  const { end, send, tell } = makeWire(socket, closed, ([first = "", ...lines]) => {
    const [head = "", ...below] = first.split("\n")
    const cut = head.indexOf(" ")
    const name = cut < 0 ? head : head.slice(0, cut)
    const event = { name, text: cut < 0 ? "" : head.slice(cut + 1), lines: [...below, ...lines] }
    for (const { handle, names } of handlers) if (names.has(name)) handle(event)
  })
  const setEvents = (): string =>
    ["SETEVENTS", ...new Set([...handlers].flatMap(({ names }) => [...names]))].join(" ")

  const subscribe: TorControl["subscribe"] = (names, handle) =>
    Effect.acquireRelease(
      Effect.suspend(() => {
        const handler = { names: new Set(names), handle }
        handlers.add(handler)
        return Effect.as(send(setEvents()), handler).pipe(
          Effect.onExit((exit) =>
            Effect.sync(() => {
              if (exit._tag === "Failure") handlers.delete(handler)
            })
          )
        )
      }),
      (handler) =>
        Effect.sync(() => {
          handlers.delete(handler)
          tell(setEvents())
        }),
      { interruptible: true }
    ).pipe(Effect.asVoid)

  return { send, subscribe, end }
}

const openSocket = (endpoint: TorEndpoint): Effect.Effect<Socket, TorControlError> =>
  Effect.callback<Socket, TorControlError>((resume) => {
    const socket = connect("path" in endpoint ? { path: endpoint.path } : endpoint)
    const failed = (error: Error) =>
      resume(Effect.fail(fail("unreachable", "", `${endpointText(endpoint)}: ${errorText(error)}`)))
    socket.once("error", failed)
    socket.once("connect", () => {
      socket.off("error", failed)
      resume(Effect.succeed(socket))
    })
    return Effect.sync(() => void socket.destroy())
  })

const cookieBytes = 32
const serverTag = "Tor safe cookie authentication server-to-controller hash"
const controllerTag = "Tor safe cookie authentication controller-to-server hash"

/** Accounts from this number on are people's, by custom; tor's own is the system's. */
const firstLoginUid = 1_000

const notLetIn = (reason: string): TorControlError => fail("not_authenticated", "AUTHENTICATE", reason)

/**
 * Reads the cookie. Whoever listens there names the file: nothing but a cookie may go into the proof. And a port may be
 * anybody's while tor is down, who would name a cookie of his own.
 */
const readCookie = (path: string, isPort: boolean): Uint8Array => {
  const handle = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    const { mode, size, uid } = fstatSync(handle)
    if (size !== cookieBytes) throw new Error("it is no cookie of tor's")
    if (isPort && (mode & 0o007) !== 0) throw new Error("it is open to other users")
    if (isPort && uid >= firstLoginUid && uid !== process.geteuid?.())
      throw new Error(`it belongs to uid ${uid}, who may be anybody: use tor's Unix socket`)
    return readFileSync(handle)
  } finally {
    closeSync(handle)
  }
}

/** Proves to each other that both know the cookie, without sending it. */
const safeCookie = Effect.fnUntraced(function* (
  send: TorControl["send"],
  cookie: Uint8Array,
  entropy: Entropy["Service"]
) {
  const own = yield* entropy.bytes(32)
  const lines = yield* send(`AUTHCHALLENGE SAFECOOKIE ${Buffer.from(own).toString("hex")}`)
  const { fields } = controlWords(lines[0] ?? "")
  const [theirs, hash] = ["SERVERNONCE", "SERVERHASH"].map((name) => Buffer.from(fields[name] ?? "", "hex"))
  const proof = (tag: string) =>
    createHmac("sha256", tag)
      .update(Buffer.concat([cookie, own, theirs ?? Buffer.alloc(0)]))
      .digest()
  const expected = proof(serverTag)
  if (hash === undefined || hash.length !== expected.length || !timingSafeEqual(hash, expected))
    return yield* notLetIn("who listens there does not know tor's cookie: it is not that tor")
  yield* send(`AUTHENTICATE ${proof(controllerTag).toString("hex")}`)
})

/**
 * Authenticates by the best way that both have: the cookie proves tor to us as well. A socket that lets everybody in lies in
 * a folder that does not; a port that does may be anybody's, and is told nothing.
 */
const authenticate = Effect.fnUntraced(function* (send: TorControl["send"], options: ControlOptions) {
  const { endpoint, entropy, password } = options
  const isPort = !("path" in endpoint)
  const info = yield* send("PROTOCOLINFO 1")
  const { fields } = controlWords(info.find((line) => line.startsWith("AUTH ")) ?? "")
  const methods = (fields["METHODS"] ?? "").split(",")
  const cookieFile = fields["COOKIEFILE"]
  const asRefusal = Effect.mapError((error: TorControlError) =>
    error.code === "refused" ? notLetIn(error.reason) : error
  )
  if (methods.includes("NULL") && !isPort) return yield* Effect.asVoid(asRefusal(send("AUTHENTICATE")))
  const takesPassword = methods.includes("HASHEDPASSWORD") && password !== undefined
  if (methods.includes("SAFECOOKIE") && cookieFile !== undefined && entropy !== undefined) {
    const cookie = yield* Effect.result(
      Effect.try({ try: () => readCookie(cookieFile, isPort), catch: errorText })
    )
    if (Result.isSuccess(cookie)) return yield* asRefusal(safeCookie(send, cookie.success, entropy))
    if (!takesPassword)
      return yield* notLetIn(
        `tor's cookie ${cookieFile} cannot be used (${cookie.failure}): let this user read it (in Debian: group debian-tor), or give the control password`
      )
  }
  if (takesPassword) return yield* Effect.asVoid(asRefusal(send(`AUTHENTICATE ${controlQuoted(password)}`)))
  if (methods.includes("NULL"))
    return yield* notLetIn(
      "who listens at that port lets everybody in, and may be anybody: write CookieAuthentication 1 into tor's configuration, or use its Unix socket"
    )
  return yield* notLetIn(
    methods.includes("HASHEDPASSWORD")
      ? "tor wants its control password, and none is configured"
      : `tor offers only ${methods.join(", ") || "nothing"}, which is not enough to authenticate`
  )
})

/** Connects and authenticates; the connection is closed with the scope. */
export const connectControl = Effect.fnUntraced(function* (
  options: ControlOptions
): Effect.fn.Return<TorControl, TorControlError, Scope.Scope> {
  const closed = yield* Deferred.make<string>()
  const timeoutMs = options.connectTimeoutMs ?? connectMs
  const late = Effect.timeoutOrElse({
    duration: Duration.millis(timeoutMs),
    orElse: () =>
      Effect.fail(
        fail("timed_out", "", `${endpointText(options.endpoint)} did not answer within ${timeoutMs} ms`)
      )
  })
  const exchange = yield* Effect.acquireRelease(
    Effect.map(late(openSocket(options.endpoint)), (socket) => makeExchange(socket, closed)),
    ({ end }) => Effect.sync(() => end("the control connection was given up")),
    { interruptible: true }
  )
  yield* late(authenticate(exchange.send, options))
  return { send: exchange.send, subscribe: exchange.subscribe, closed: Deferred.await(closed) }
})

/** Asks `GETINFO` for one key, and gives its value. */
export const torInfo = (
  control: TorControl,
  key: string,
  options?: { readonly timeoutMs?: number }
): Effect.Effect<string, TorControlError> =>
  Effect.flatMap(control.send(`GETINFO ${key}`, options), (lines) => {
    const line = lines.find((each) => each.startsWith(`${key}=`))
    return line === undefined
      ? Effect.fail(fail("malformed", "GETINFO", `tor's answer does not hold ${key}`))
      : Effect.succeed(line.slice(key.length + 1))
  })

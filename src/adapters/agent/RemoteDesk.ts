/**
 * The desk of an agent that another program of this machine runs, by its socket (`AgentSocket`). One connection; when it
 * ends, everything under way fails with `gone`, and so does what is asked later.
 *
 * @module
 */
import { connect, type Socket } from "node:net"
import { Deferred, Effect, Result, Schema, type Scope, Semaphore } from "effect"
import type { AgentDesk } from "../../ports/AgentDesk.ts"
import {
  AgentLocalLimits,
  AgentTrouble,
  LocalAnswer,
  LocalReport,
  type LocalRequest,
  LocalValues
} from "../../schemas/AgentLocal.ts"
import { MessageId } from "../../schemas/Message.ts"
import { lines } from "../ControlSocket.ts"
import { errorCode, errorText } from "../files/AtomicFile.ts"
import { agentSocketPath } from "./AgentSocket.ts"
import { appearanceFlaw, letterBodyFlaw, letterFlaw, nameFlaw, unlessFlawed } from "./LocalChecks.ts"

/** How long an agent may take for what it does at once. */
const answerMs = 30_000
/**
 * Messages of one connection that are asked to be kept at once: others wait here, where their time does not run, and what
 * else is asked finds room among what may be under way.
 */
const sendsTogether = AgentLocalLimits.underWay / 2
/** A slow disk is waited for by all connections, one message after the other. */
const sendMs = 60_000

const decodeAnswer = Schema.decodeUnknownResult(Schema.fromJsonString(LocalAnswer))

const trouble = (code: AgentTrouble["code"], reason: string) => new AgentTrouble({ code, reason })

type Unnumbered<A> = A extends unknown ? Omit<A, "id"> : never

const connectTrouble = (path: string, error: Error): AgentTrouble => {
  switch (errorCode(error)) {
    case "ENOENT":
    case "ECONNREFUSED":
      return trouble("not_running", `no agent runs on this state folder (${path})`)
    case "ECONNRESET":
      return trouble("gone", "the program that ran the agent is ending")
    default:
      return trouble("failed", `${path}: ${errorText(error)}`)
  }
}

/** Waits until a connection stands. */
const connected = (path: string): Effect.Effect<Socket, AgentTrouble> =>
  Effect.callback((resume) => {
    const socket = connect(path)
    const failed = (error: Error): void => {
      socket.destroy()
      resume(Effect.fail(connectTrouble(path, error)))
    }
    socket.once("error", failed)
    socket.once("connect", () => {
      socket.off("error", failed)
      resume(Effect.succeed(socket))
    })
    return Effect.sync(() => void socket.destroy())
  })

/** Numbers questions and finds the answers to them. */
const makeAsking = (socket: Socket) => {
  const open = new Map<number, (answer: Effect.Effect<unknown, AgentTrouble>) => void>()
  const ended = Deferred.makeUnsafe<never, AgentTrouble>()
  let lastId = 0
  let over: AgentTrouble | undefined
  const end = (why: AgentTrouble): void => {
    over ??= why
    Deferred.doneUnsafe(ended, Effect.fail(over))
    socket.destroy()
    for (const answer of open.values()) answer(Effect.fail(over))
    open.clear()
  }
  const settle = (id: number, result: Effect.Effect<unknown, AgentTrouble>): void => {
    const asker = open.get(id)
    open.delete(id)
    asker?.(result)
  }
  const take = (line: string): void => {
    const read = decodeAnswer(line)
    if (Result.isFailure(read))
      return end(trouble("malformed", "what listens there does not speak as this version of Postern does"))
    const answer = read.success
    if (answer.ok) return settle(answer.id, Effect.succeed(answer.value))
    const why = trouble(answer.code, answer.error)
    // What answers no question concerns the connection.
    if (answer.id === null) end(why)
    else settle(answer.id, Effect.fail(why))
  }
  lines(socket, AgentLocalLimits.answerBytes + 1024, take, () =>
    end(trouble("malformed", "the agent's answer is too large"))
  )
  socket.on("error", (error) => end(trouble("gone", `the agent is gone: ${errorText(error)}`)))
  socket.on("close", () => end(trouble("gone", "the program that ran the agent has ended")))
  const ask = (
    request: Unnumbered<LocalRequest>,
    withinMs = answerMs
  ): Effect.Effect<unknown, AgentTrouble> =>
    Effect.callback<unknown, AgentTrouble>((resume) => {
      if (over !== undefined) return resume(Effect.fail(over))
      const id = ++lastId
      open.set(id, resume)
      socket.write(`${JSON.stringify({ ...request, id })}\n`)
      return Effect.sync(() => void open.delete(id))
    }).pipe(
      Effect.timeoutOrElse({
        duration: withinMs,
        orElse: () => Effect.fail(trouble("timed_out", `the agent did not answer within ${withinMs} ms`))
      })
    )
  return { ask, ended: Deferred.await(ended) }
}

/** A value of an answer; one of another shape comes from another version. */
const as = <A>(schema: Schema.Codec<A, unknown>) => {
  const decode = Schema.decodeUnknownResult(schema)
  return Effect.flatMap((value: unknown) => {
    const read = decode(value)
    return Result.isSuccess(read)
      ? Effect.succeed(read.success)
      : Effect.fail(trouble("malformed", "the agent's answer is not of the expected shape"))
  })
}

/** A ping has its own time; this is for an agent that does not answer at all. */
const pingMs = 25_000

/** A desk of another program, which may end at any time. */
export interface RemoteDesk extends AgentDesk {
  /** Fails when the program has ended, or speaks no more. */
  readonly ended: Effect.Effect<never, AgentTrouble>
}

/** Connects to the agent of a state folder, for as long as the scope lasts. */
export const connectAgent = (stateFolder: string): Effect.Effect<RemoteDesk, AgentTrouble, Scope.Scope> =>
  Effect.gen(function* () {
    const socket = yield* Effect.acquireRelease(connected(agentSocketPath(stateFolder)), (socket) =>
      Effect.sync(() => void socket.destroy())
    )
    const { ask, ended } = makeAsking(socket)
    const sends = Semaphore.makeUnsafe(sendsTogether)
    return {
      ended,
      // What no agent takes is not asked: a line that is too long would end the connection.
      send: (letter) =>
        unlessFlawed(
          () => letterFlaw(letter) ?? letterBodyFlaw(letter),
          sends.withPermit(ask({ request: "send", ...letter }, sendMs)).pipe(as(MessageId))
        ),
      unsent: (message) => ask({ request: "unsent", message }).pipe(as(Schema.Boolean)),
      ping: (to) =>
        unlessFlawed(
          () => nameFlaw(to),
          ask({ request: "ping", to }, pingMs).pipe(as(Schema.NullOr(Schema.Finite)))
        ),
      peers: ask({ request: "peers" }).pipe(as(LocalValues.peers)),
      report: ask({ request: "report" }).pipe(as(LocalReport)),
      show: (appearance) =>
        unlessFlawed(
          () => appearanceFlaw(appearance),
          Effect.asVoid(ask({ request: "show", ...appearance }))
        ),
      listen: Effect.map(
        // A listener is a connection.
        Effect.acquireRelease(connected(agentSocketPath(stateFolder)), (own) =>
          Effect.sync(() => void own.destroy())
        ),
        (own) => {
          const { ask: asListener } = makeAsking(own)
          return {
            take: (maximum, waitMs) =>
              asListener({ request: "take", maximum, wait_ms: waitMs }, waitMs + answerMs).pipe(
                as(LocalValues.take)
              ),
            done: (places) => Effect.asVoid(asListener({ request: "done", places: [...places] }))
          }
        }
      )
    }
  })

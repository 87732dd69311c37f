/** The agent of `Api.ts`: promises over the desk of an agent, wherever that runs. */
import { Cause, Effect, Exit, Logger, Option, Scope } from "effect"
import type { AgentDesk } from "../../ports/AgentDesk.ts"
import { AgentTrouble, type LocalReport } from "../../schemas/AgentLocal.ts"
import type { AgentName } from "../../schemas/Topics.ts"
import {
  AgentError,
  type LogLine,
  type OpenOptions,
  type SmartAgent,
  type State,
  type StateName
} from "./Api.ts"
import { letterOf, listOf, peerOf, reportOf, stateOf } from "./Conversions.ts"
import { makeMessageLoop } from "./MessageLoop.ts"
import { openAcceptedIn } from "./OpenAgent.ts"
import { type OpenedAgent, steadyReport, untilAccepted } from "./OpenedAgent.ts"
import { settingsFrom } from "./OptionsOfAgent.ts"

/** How often a state that somebody waits for, or wants to be told of, is looked at. */
const lookMs = 250
const watchMs = 1_000

const hasCode = (error: unknown): error is Error & { readonly code: string } =>
  error instanceof Error && "code" in error && typeof error.code === "string"

const errorOf = (cause: Cause.Cause<unknown>): AgentError => {
  if (Cause.hasInterruptsOnly(cause)) return new AgentError("closed", "the agent was closed")
  const error = Cause.squash(cause)
  if (error instanceof AgentError) return error
  const message = error instanceof Error ? error.message : String(error)
  return new AgentError(!Cause.hasDies(cause) && hasCode(error) ? error.code : "failed", message)
}

const levels: Readonly<Record<string, LogLine["level"]>> = {
  Info: "info",
  Warn: "warn",
  Error: "error",
  Fatal: "error"
}

/** What happens inside goes to whoever wants it, and nowhere else. */
const logTo = (onLog: OpenOptions["onLog"]) =>
  Logger.layer([
    Logger.make<unknown, void>(({ logLevel, message }) => {
      const parts = Array.isArray(message) ? message : [message]
      onLog?.({ level: levels[logLevel] ?? "debug", message: parts.map(String).join(" ") })
    })
  ])

/** Runs Effects as promises, until it is ended: by whoever closes the agent, or by what ended the agent itself. */
const makeRunner = (options: OpenOptions) => {
  const layer = logTo(options.onLog)
  const ending = new AbortController()
  let failure: AgentError | undefined
  return {
    end: (why?: AgentError) => {
      failure = why
      ending.abort()
    },
    /** Closed as somebody wished. */
    isClosed: () => ending.signal.aborted && failure === undefined,
    run: async <A, E>(effect: Effect.Effect<A, E>): Promise<A> => {
      const exit = await Effect.runPromiseExit(Effect.provide(effect, layer), { signal: ending.signal })
      if (Exit.isSuccess(exit)) return exit.value
      throw Cause.hasInterruptsOnly(exit.cause) && failure !== undefined ? failure : errorOf(exit.cause)
    }
  }
}
type Runner = ReturnType<typeof makeRunner>

/** Tells a state whenever it differs from the one told before. */
const makeTeller = (onState: OpenOptions["onState"]) => {
  let told = ""
  return (report: LocalReport): void => {
    const state = stateOf(report)
    const text = JSON.stringify(state)
    if (text === told) return
    told = text
    onState?.(state)
  }
}

/** Waits until a desk tells a state, or until the time is over. */
const reachOn = (
  desk: AgentDesk,
  state: StateName,
  timeoutMs: number | undefined
): Effect.Effect<State, AgentTrouble> => {
  const look = Effect.map(steadyReport(desk), stateOf)
  const wait = Effect.gen(function* () {
    for (;;) {
      const now = yield* look
      if (now.state === state) return now
      yield* Effect.sleep(lookMs)
    }
  })
  if (timeoutMs === undefined) return wait
  return Effect.timeoutOrElse(wait, {
    duration: timeoutMs,
    orElse: () =>
      Effect.flatMap(Effect.map(desk.report, stateOf), ({ detail, state: is }) =>
        Effect.fail(
          new AgentTrouble({
            code: "timed_out",
            reason: `the agent is ${is}, not ${state}, after ${timeoutMs} ms${detail === "" ? "" : `: ${detail}`}`
          })
        )
      )
  })
}

/** The agent's face, over a desk. */
const faceOf = (
  { desk }: OpenedAgent,
  runner: Runner,
  ends: { readonly close: () => Promise<void>; readonly closed: Promise<void> }
): SmartAgent => {
  const { run } = runner
  return {
    send: async (letter) => run(Effect.flatMap(Effect.fromResult(letterOf(letter)), desk.send)),
    messages: { [Symbol.asyncIterator]: () => makeMessageLoop(desk, runner) },
    ping: (agent) => run(desk.ping(agent as AgentName)),
    peers: () => run(Effect.map(desk.peers, (peers) => peers.map(peerOf))),
    report: () => run(Effect.map(desk.report, reportOf)),
    reach: (state, options = {}) => run(reachOn(desk, state, options.timeoutMs)),
    show: async ({ edgeDevices = [], visible }) =>
      run(desk.show({ visible, edge_devices: listOf(edgeDevices) as ReadonlyArray<string> })),
    ...ends
  }
}

/** Ends the agent once, whoever asks for it first. */
const makeEnds = (scope: Scope.Closeable, runner: Runner, options: OpenOptions) => {
  let closing: Promise<void> | undefined
  const end = (why?: AgentError): Promise<void> => {
    closing ??= (async () => {
      options.signal?.removeEventListener("abort", onAbort)
      runner.end(why)
      await Effect.runPromise(Effect.provide(Scope.close(scope, Exit.void), logTo(options.onLog)))
    })()
    return closing
  }
  const onAbort = (): void => void end()
  options.signal?.addEventListener("abort", onAbort)
  return end
}

export const openAgent = async (options: OpenOptions): Promise<SmartAgent> => {
  if (options.signal?.aborted === true) throw new AgentError("closed", "the opening was called off")
  const runner = makeRunner(options)
  const scope = Scope.makeUnsafe()
  const end = makeEnds(scope, runner, options)
  const tell = makeTeller(options.onState)
  try {
    const agent = await runner.run(
      Effect.gen(function* () {
        const told = (report: LocalReport) => Effect.sync(() => tell(report))
        const open = openAcceptedIn(yield* settingsFrom(options), (opened) => untilAccepted(opened, told))
        return yield* Scope.provide(open, scope)
      })
    )
    const look = agent.desk.report.pipe(
      // What ended the agent is told by `ended`; of anything else the next look knows more.
      Effect.option,
      Effect.tap((report) => Effect.sync(() => Option.map(report, tell)))
    )
    const watch = Effect.forever(Effect.andThen(look, Effect.sleep(watchMs)))
    const ended = options.onState === undefined ? agent.ended : Effect.raceFirst(agent.ended, watch)
    const closed = runner.run(ended).catch(async (error: AgentError) => {
      await end(error)
      if (!runner.isClosed()) throw error
    })
    // Whoever does not look at it must not be brought down by it.
    closed.catch(() => undefined)
    return faceOf(agent, runner, { close: () => end(), closed })
  } catch (error) {
    await end()
    throw error
  }
}

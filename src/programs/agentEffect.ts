/**
 * `postern/agent/effect`: the same agents for programs on Effect, as a thin layer over the promises of `postern/agent`. That
 * one carries its own copy of Effect; this one takes yours, so that any 4.x serves.
 *
 * @module
 */
import { Data, Effect, type Scope, Stream } from "effect"
import {
  AgentError,
  type Letter,
  type Message,
  type OpenOptions,
  type OriginCheck,
  type Peer,
  SmartAgent as Promised,
  type PublicMessage,
  type Report,
  type SecureMessage,
  type State,
  type StateName
} from "./agent.ts"

/** Why something failed; the codes are those of `AgentError`. */
export class AgentFailure extends Data.TaggedError("AgentFailure")<{
  readonly code: string
  readonly reason: string
}> {
  override get message(): string {
    return this.reason
  }
}

/** A message that came. It has been dealt with when `done` was run, or when the stream is asked for the next. */
export type EffectMessage =
  | (Omit<SecureMessage, "done"> & { readonly done: Effect.Effect<void, AgentFailure> })
  | (Omit<PublicMessage, "done"> & { readonly done: Effect.Effect<void, AgentFailure> })

/** A running agent; it ends with its scope. */
export interface EffectAgent {
  readonly send: (letter: Letter) => Effect.Effect<string, AgentFailure>
  /** See `SmartAgent.messages`. A stream that buffers counts what it has buffered as dealt with. */
  readonly messages: Stream.Stream<EffectMessage, AgentFailure>
  readonly ping: (agent: string) => Effect.Effect<number | null, AgentFailure>
  readonly peers: Effect.Effect<ReadonlyArray<Peer>, AgentFailure>
  readonly report: Effect.Effect<Report, AgentFailure>
  readonly reach: (
    state: StateName,
    options?: { readonly timeoutMs?: number }
  ) => Effect.Effect<State, AgentFailure>
  readonly show: (appearance: {
    readonly visible: boolean
    readonly edgeDevices?: ReadonlyArray<string>
  }) => Effect.Effect<void, AgentFailure>
  /** Fails when the agent has ended by itself. */
  readonly closed: Effect.Effect<void, AgentFailure>
}

const failureOf = (error: unknown): AgentFailure =>
  error instanceof AgentError
    ? new AgentFailure({ code: error.code, reason: error.message })
    : new AgentFailure({ code: "failed", reason: String(error) })

const attempt = <A>(work: () => Promise<A>): Effect.Effect<A, AgentFailure> =>
  Effect.tryPromise({ try: work, catch: failureOf })

const messageOf = (message: Message): EffectMessage => ({
  ...message,
  done: attempt(() => message.done())
})

export const SmartAgent = {
  /** Opens an agent, as `SmartAgent.open` does, for as long as the scope lasts. Interrupting it while it waits is fine. */
  make: (options: Omit<OpenOptions, "signal">): Effect.Effect<EffectAgent, AgentFailure, Scope.Scope> =>
    Effect.acquireRelease(
      Effect.tryPromise({ try: (signal) => Promised.open({ ...options, signal }), catch: failureOf }),
      (agent) => Effect.promise(() => agent.close()),
      { interruptible: true }
    ).pipe(
      Effect.map((agent) => ({
        send: (letter) => attempt(() => agent.send(letter)),
        messages: Stream.map(Stream.fromAsyncIterable(agent.messages, failureOf), messageOf),
        ping: (to) => attempt(() => agent.ping(to)),
        peers: attempt(() => agent.peers()),
        report: attempt(() => agent.report()),
        reach: (state, reachOptions) => attempt(() => agent.reach(state, reachOptions)),
        show: (appearance) => attempt(() => agent.show(appearance)),
        closed: attempt(() => agent.closed)
      }))
    ),
  /** Checks a message's proof of origin. Never fails. */
  checkOrigin: (proof: unknown, signingKey?: string): Effect.Effect<OriginCheck> =>
    Effect.promise(() => Promised.checkOrigin(proof, signingKey))
}

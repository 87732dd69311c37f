/** The port `AgentStore` over a hosted agent database. */
import { Effect, Layer } from "effect"
import { AgentStore, AgentStoreError } from "../../ports/AgentStore.ts"
import type { DatabaseHost } from "./Database.ts"
import type { AgentMethods } from "./messages/AgentDatabase.ts"

const full = (what: string) =>
  new AgentStoreError({ code: "full", reason: `as many ${what} wait as may wait` })

const idsFull = new AgentStoreError({
  code: "ids_full",
  reason: "as many ids of messages are remembered as may be"
})

/** The port over a host. */
export const makeAgentStore = (host: DatabaseHost<AgentMethods>): AgentStore["Service"] => {
  const ask =
    <const K extends keyof AgentMethods & string>(method: K) =>
    (...args: Parameters<AgentMethods[K]>): Effect.Effect<ReturnType<AgentMethods[K]>, AgentStoreError> =>
      Effect.mapError(
        host.call(method, ...args),
        (error) => new AgentStoreError({ code: "failed", reason: `${error.operation}: ${error.reason}` })
      )
  return {
    queue: (draft, guessedIn) =>
      Effect.flatMap(ask("queue")(draft, guessedIn), (outcome) =>
        outcome === "full" ? Effect.fail(full("messages to be sent")) : Effect.succeed(outcome)
      ),
    queued: ask("queued"),
    settle: ask("settle"),
    counts: Effect.suspend(ask("counts")),
    sent: ask("sent"),
    isQueued: ask("isQueued"),
    take: (received) =>
      Effect.flatMap(ask("take")(received), (outcome) =>
        outcome === "full"
          ? Effect.fail(full("messages for the application"))
          : outcome === "ids_full"
            ? Effect.fail(idsFull)
            : Effect.succeed(outcome === "taken")
      ),
    hasRoom: Effect.suspend(ask("hasRoom")),
    waiting: ask("waiting"),
    dealtWith: ask("dealtWith"),
    prune: ask("prune")
  }
}

export const AgentStoreOver = (host: DatabaseHost<AgentMethods>): Layer.Layer<AgentStore> =>
  Layer.succeed(AgentStore, makeAgentStore(host))

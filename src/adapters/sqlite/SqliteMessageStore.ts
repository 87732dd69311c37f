/** The port `MessageStore` over the hosted messages database. */
import { Effect, Layer } from "effect"
import { MessageStore, MessageStoreError } from "../../ports/MessageStore.ts"
import type { DatabaseHost } from "./Database.ts"
import type { RelayMethods } from "./messages/RelayRows.ts"

/** The port over a host. */
export const makeMessageStore = (host: DatabaseHost<RelayMethods>): MessageStore["Service"] => {
  const ask =
    <const K extends keyof RelayMethods & string>(method: K) =>
    (...args: Parameters<RelayMethods[K]>): Effect.Effect<ReturnType<RelayMethods[K]>, MessageStoreError> =>
      Effect.mapError(
        host.call(method, ...args),
        (error) =>
          new MessageStoreError({ operation: error.operation, reason: `${error.code}: ${error.reason}` })
      )
  return {
    agents: Effect.suspend(() => ask("agents")()),
    putAgent: ask("putAgent"),
    dropAgent: ask("dropAgent"),
    accept: ask("accept"),
    undelivered: ask("undelivered"),
    delivered: ask("delivered"),
    prune: ask("prune"),
    refused: ask("refused"),
    refusals: ask("refusals")
  }
}

export const MessageStoreOver = (host: DatabaseHost<RelayMethods>): Layer.Layer<MessageStore> =>
  Layer.succeed(MessageStore, makeMessageStore(host))

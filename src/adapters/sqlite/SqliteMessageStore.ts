/** The port `MessageStore` over the hosted messages database, which the embedded broker keeps its sessions in too. */
import { join } from "node:path"
import { Context, Effect, Layer } from "effect"
import { MessageStore, MessageStoreError, type RefusalRow } from "../../ports/MessageStore.ts"
import type { DatabaseHost, SqliteError } from "./Database.ts"
import { messagesDatabase } from "./messages/MessagesDatabase.ts"
import type { MosquittoMethods } from "./messages/MosquittoRows.ts"
import type { MqttMethods } from "./messages/MqttRows.ts"
import type { RelayMethods } from "./messages/RelayRows.ts"
import { openInWorker, type WorkerDatabaseHost } from "./WorkerDatabase.ts"

/** The messages database itself, for what stands beside a broker. */
export class MessagesHost extends Context.Service<
  MessagesHost,
  WorkerDatabaseHost<MqttMethods & RelayMethods & MosquittoMethods>
>()("postern/adapters/MessagesHost") {}

/** Reasons that may wait to be written; what comes beyond is counted among those who are no agents. */
const maximumWaiting = 1_024
/** What one caller writes for others before it goes its way. */
const maximumRounds = 2

/** Counts that wait while others are being written. */
class RefusalsWaiting {
  private rows = new Map<string, RefusalRow>()
  /** Whether somebody is writing. */
  busy = false

  add(agent: RefusalRow["agent"], code: RefusalRow["code"], lastAtMs: number, count = 1): void {
    const key = `${code} ${agent ?? ""}`
    const known = this.rows.get(key)
    if (known === undefined && agent !== null && this.rows.size >= maximumWaiting)
      return this.add(null, code, lastAtMs, count)
    const latest = Math.max(known?.lastAtMs ?? 0, lastAtMs)
    this.rows.set(key, { agent, code, count: (known?.count ?? 0) + count, lastAtMs: latest })
  }

  take(): ReadonlyArray<RefusalRow> {
    const rows = [...this.rows.values()]
    this.rows = new Map()
    return rows
  }

  putBack(rows: ReadonlyArray<RefusalRow>): void {
    for (const { agent, code, count, lastAtMs } of rows) this.add(agent, code, lastAtMs, count)
  }

  get isEmpty(): boolean {
    return this.rows.size === 0
  }
}

type Write = (rows: ReadonlyArray<RefusalRow>) => Effect.Effect<void, MessageStoreError>

/** Counts refusals by a writer that one at a time may use. */
const makeRefusals = (write: Write) => {
  const waiting = new RefusalsWaiting()
  const writeAll = Effect.suspend(() => {
    const rows = waiting.take()
    return Effect.tapCause(write(rows), () => Effect.sync(() => waiting.putBack(rows)))
  })
  const flush = Effect.gen(function* () {
    for (let round = 0; round < maximumRounds && !waiting.isEmpty; round++) yield* writeAll
  })
  return {
    /** Writes what waits, unless somebody is at it. */
    flush: Effect.suspend(() => {
      if (waiting.busy) return Effect.void
      waiting.busy = true
      return Effect.ensuring(
        flush,
        Effect.sync(() => {
          waiting.busy = false
        })
      )
    }),
    /** Writes what waits, whoever else is at it. */
    writeAll: Effect.suspend(() => (waiting.isEmpty ? Effect.void : writeAll)),
    add: (agent: RefusalRow["agent"], code: RefusalRow["code"], atMs: number, count?: number) =>
      Effect.sync(() => waiting.add(agent, code, atMs, count))
  }
}

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
  const refusals = makeRefusals(ask("refused"))
  return {
    agents: Effect.suspend(() => ask("agents")()),
    putAgent: ask("putAgent"),
    dropAgent: ask("dropAgent"),
    accept: ask("accept"),
    undelivered: ask("undelivered"),
    deliveries: ask("deliveries"),
    delivered: ask("delivered"),
    prune: ask("prune"),
    backlogs: ask("backlogs"),
    backlog: Effect.suspend(() => ask("backlog")()),
    refused: (agent, code, atMs, count) =>
      Effect.andThen(refusals.add(agent, code, atMs, count), refusals.flush),
    refusals: (maximum, agent) => Effect.andThen(refusals.writeAll, ask("refusals")(maximum, agent)),
    refusalCounts: Effect.andThen(
      refusals.writeAll,
      Effect.suspend(() => ask("refusalCounts")())
    )
  }
}

export const MessageStoreOver = (host: DatabaseHost<RelayMethods>): Layer.Layer<MessageStore> =>
  Layer.succeed(MessageStore, makeMessageStore(host))

/** Production: `messages.db` in `folder`, in a thread of its own. */
export const SqliteMessageStore = (options: {
  readonly folder: string
  readonly entry: URL
  readonly onTrouble?: (reason: string) => void
}): Layer.Layer<MessageStore | MessagesHost, SqliteError> => {
  const { entry, folder, onTrouble } = options
  return Layer.effectContext(
    Effect.map(
      openInWorker(messagesDatabase, {
        path: join(folder, "messages.db"),
        entry,
        ...(onTrouble === undefined ? {} : { onTrouble })
      }),
      (host) => Context.make(MessagesHost, host).pipe(Context.add(MessageStore, makeMessageStore(host)))
    )
  )
}

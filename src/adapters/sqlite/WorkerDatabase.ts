/**
 * A database hosted in a worker thread. Calls that come while a batch is on its way wait together and become the next
 * batch: one transaction, one flush to disk, however many callers. A thread that dies fails what it had in hand and is
 * started again.
 */
import { Worker } from "node:worker_threads"
import { Effect, type Scope } from "effect"
import type { Call, Reply } from "./Batch.ts"
import { type DatabaseDefinition, type DatabaseHost, type Methods, SqliteError } from "./Database.ts"
import type { FromWorker, ToWorker, WorkerRole } from "./DatabaseWorker.ts"
import { refuseFenced } from "./Fenced.ts"

export interface WorkerOptions {
  readonly path: string
  /** The program's entry (`new URL(import.meta.url)` there); it must call `serveDatabase` first. */
  readonly entry: URL
  /** Calls waiting at once; one more fails as `overloaded`. Default 4,096. */
  readonly maximumQueue?: number
  /** Calls in one transaction. Default 512. */
  readonly maximumBatch?: number
  /** Told when the thread died and when it could not be opened again; for the log. */
  readonly onTrouble?: (reason: string) => void
}

/** How busy a database is. */
export interface DatabaseFigures {
  readonly database: string
  /** Calls that are not answered yet. */
  readonly waiting: number
  /** Since the start: calls taken, transactions they were put into, and calls refused because too many waited. */
  readonly calls: number
  readonly batches: number
  readonly refused: number
}

/** How long a thread may take to open its database, and to close it. */
const openTimeoutMs = 30_000
const closeTimeoutMs = 4_000

/** Pauses before a dead thread is started again, by consecutive deaths. */
const restartDelaysMs = [0, 50, 200, 1_000, 5_000]

interface Waiting {
  readonly call: Call
  readonly settle: (reply: Reply | SqliteError) => void
}

/** The thread and its queues. Plain callbacks: an Effect around each call is made by {@link openInWorker}. */
class WorkerHost {
  private readonly database: string
  private readonly options: WorkerOptions
  private readonly maximumQueue: number
  private readonly maximumBatch: number
  private worker: Worker | undefined = undefined
  private ready = false
  private closing = false
  private nextId = 0
  private batches = 0
  private refused = 0
  private deaths = 0
  private queue: Array<Waiting> = []
  private inFlight = new Map<number, Waiting>()
  private flushScheduled = false
  private restart: NodeJS.Timeout | undefined = undefined

  constructor(database: string, options: WorkerOptions) {
    this.database = database
    this.options = options
    this.maximumQueue = options.maximumQueue ?? 4_096
    this.maximumBatch = options.maximumBatch ?? 512
  }

  private error(operation: string, code: SqliteError["code"], reason: string): SqliteError {
    return new SqliteError({ database: this.database, operation, code, reason })
  }

  /** Starts a thread; `opened` hears once whether the database is usable. */
  open(opened: (error: SqliteError | undefined) => void): void {
    const role: WorkerRole = { role: "postern/sqlite", database: this.database, path: this.options.path }
    const worker = new Worker(this.options.entry, {
      workerData: role,
      name: `sqlite ${this.database}`,
      execArgv: [],
      argv: []
    })
    this.worker = worker
    let told = false
    let lastError = "it ended without a word"
    const tell = (error: SqliteError | undefined) => {
      if (told) return
      told = true
      clearTimeout(timer)
      opened(error)
    }
    const timer = setTimeout(() => {
      lastError = `it did not open within ${openTimeoutMs} ms`
      void worker.terminate()
    }, openTimeoutMs)
    worker.on("message", (message: FromWorker) => {
      if (message.type === "ready") {
        this.ready = true
        tell(undefined)
        this.flush()
      } else if (message.type === "unusable") {
        lastError = message.reason
        tell(this.error("open", "unusable", message.reason))
      } else if (message.type === "replies") {
        this.deaths = 0
        this.settle(message.replies)
      }
    })
    worker.on("error", (error) => {
      lastError = error.message
    })
    worker.on("exit", () => {
      const wasReady = this.ready
      this.ready = false
      this.worker = undefined
      tell(this.error("open", "unusable", lastError))
      if (this.closing) return
      this.failEverything(wasReady ? "died" : "unusable", `the database thread ended: ${lastError}`)
      this.options.onTrouble?.(
        `${this.database}: the database thread ended and is started again: ${lastError}`
      )
      this.startAgain()
    })
  }

  private startAgain(): void {
    const delayMs = restartDelaysMs[Math.min(this.deaths, restartDelaysMs.length - 1)] as number
    this.deaths++
    this.restart = setTimeout(() => {
      if (!this.closing) this.open(() => undefined)
    }, delayMs)
    this.restart.unref()
  }

  private settle(replies: ReadonlyArray<Reply>): void {
    for (const reply of replies) {
      const waiting = this.inFlight.get(reply.id)
      this.inFlight.delete(reply.id)
      waiting?.settle(reply)
    }
    this.flush()
  }

  private failEverything(code: "died" | "unusable" | "closed", reason: string): void {
    const all = [...this.inFlight.values(), ...this.queue]
    this.inFlight = new Map()
    this.queue = []
    for (const waiting of all) waiting.settle(this.error(waiting.call.method, code, reason))
  }

  /** Sends what waits, unless a batch is on its way or the thread is not there yet. */
  private flush(): void {
    if (!this.ready || this.worker === undefined || this.inFlight.size > 0 || this.queue.length === 0) return
    const batch = this.queue.splice(0, this.maximumBatch)
    this.batches++
    for (const waiting of batch) this.inFlight.set(waiting.call.id, waiting)
    const message: ToWorker = { type: "calls", calls: batch.map((waiting) => waiting.call) }
    try {
      this.worker.postMessage(message)
    } catch (error) {
      // Something in an argument cannot be cloned: a mistake of ours, which must not stall the others' calls.
      this.inFlight = new Map()
      for (const waiting of batch) waiting.settle(this.error(waiting.call.method, "failed", String(error)))
      this.flush()
    }
  }

  /** Adds a call to the next batch and returns the way to withdraw it, which works until it is sent. */
  submit(method: string, args: ReadonlyArray<unknown>, settle: Waiting["settle"]): () => void {
    if (this.closing) {
      settle(this.error(method, "closed", "the database is closed"))
      return () => undefined
    }
    if (this.queue.length >= this.maximumQueue) {
      this.refused++
      settle(this.error(method, "overloaded", `${this.maximumQueue} calls wait already: try again later`))
      return () => undefined
    }
    const waiting: Waiting = { call: { id: this.nextId++, method, args }, settle }
    this.queue.push(waiting)
    if (!this.flushScheduled) {
      this.flushScheduled = true
      // After this turn of the event loop, so that calls made in one turn share a transaction.
      setImmediate(() => {
        this.flushScheduled = false
        this.flush()
      })
    }
    return () => {
      const at = this.queue.indexOf(waiting)
      if (at >= 0) this.queue.splice(at, 1)
    }
  }

  /** Lets the batch in hand commit, closes the file and ends the thread; calls still waiting fail as `closed`. */
  close(done: () => void): void {
    this.closing = true
    clearTimeout(this.restart)
    const queued = this.queue
    this.queue = []
    for (const waiting of queued)
      waiting.settle(this.error(waiting.call.method, "closed", "the database is closed"))
    const worker = this.worker
    if (worker === undefined) {
      done()
      return
    }
    const timer = setTimeout(() => void worker.terminate(), closeTimeoutMs)
    worker.once("exit", () => {
      clearTimeout(timer)
      this.failEverything("died", "the database thread ended")
      done()
    })
    const message: ToWorker = { type: "close" }
    worker.postMessage(message)
  }

  figures(): DatabaseFigures {
    const waiting = this.queue.length + this.inFlight.size
    return {
      database: this.database,
      waiting,
      calls: this.nextId,
      batches: this.batches,
      refused: this.refused
    }
  }

  /** Ends the thread as a crash would. For tests of what follows. */
  kill(): void {
    void this.worker?.terminate()
  }
}

/** A host in a worker thread, with what a test needs besides. */
export interface WorkerDatabaseHost<M extends Methods> extends DatabaseHost<M> {
  /** Ends the thread at once, as a crash would; it is started again. */
  readonly kill: Effect.Effect<void>
  /** How busy it is. */
  readonly figures: () => DatabaseFigures
}

/**
 * Starts a thread for the database, waits until it is open and migrated, and closes it with the scope. Interrupting a
 * call withdraws it while it is still queued.
 */
export const openInWorker = <M extends Methods>(
  definition: DatabaseDefinition<M>,
  options: WorkerOptions
): Effect.Effect<WorkerDatabaseHost<M>, SqliteError, Scope.Scope> =>
  Effect.gen(function* () {
    const host = yield* Effect.acquireRelease(
      Effect.sync(() => new WorkerHost(definition.name, options)),
      (started) => Effect.callback<void>((resume) => started.close(() => resume(Effect.void)))
    )
    yield* Effect.callback<void, SqliteError>((resume) =>
      host.open((error) => resume(error === undefined ? Effect.void : Effect.fail(error)))
    )
    return {
      call: (method, ...args) =>
        refuseFenced(
          definition.name,
          method,
          Effect.callback((resume) => {
            const withdraw = host.submit(method, args, (reply) =>
              resume(
                reply instanceof SqliteError
                  ? Effect.fail(reply)
                  : reply.ok
                    ? Effect.succeed(reply.value as never)
                    : Effect.fail(
                        new SqliteError({
                          database: definition.name,
                          operation: method,
                          code: "failed",
                          reason: reply.reason
                        })
                      )
              )
            )
            return Effect.sync(withdraw)
          })
        ),
      kill: Effect.sync(() => host.kill()),
      figures: () => host.figures()
    }
  })

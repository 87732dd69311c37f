/**
 * Threads that do broker services' cryptography. Work of different senders is done in turns, so that none waits for
 * another's flood. A thread that dies or hangs is replaced, and what it had in hand is done again, alone: work that kills
 * threads takes nobody else's along, and is given up after some tries.
 *
 * Plain callbacks; `ThreadedRelayCrypto` makes Effects of them.
 */
import { Worker } from "node:worker_threads"
import type { Engine } from "../../crypto/Engine.ts"
import type { RelayKeys } from "../../crypto/Relay.ts"
import { RelayCryptoError } from "../../ports/RelayCrypto.ts"
import { FairQueue } from "./FairQueue.ts"
import type { RelayRole } from "./RelayRole.ts"
import type { FromRelayThread, RelayValue, RelayWork, ToRelayThread } from "./RelayThread.ts"

export interface RelayPoolOptions {
  /** The program's entry; it calls `serveRelay` where `isRelayThread`. */
  readonly entry: URL
  readonly threads: number
  readonly engine: Engine["name"]
  /** The keys as they are now. A rotation gives another map of agreements; threads get it before their next work. */
  readonly keys: RelayKeys
  /** Work waiting at once, of all and of one sender; more fails as `overloaded`. Default 16,384 and 128. */
  readonly maximumQueue?: number
  readonly maximumPerSender?: number
  /** How long a thread may be silent with work in hand. Default 30 s. */
  readonly silenceMs?: number
  /** Told when a thread ended that was not told to; for the log. */
  readonly onTrouble?: (reason: string) => void
}

/** How busy the threads are. */
export interface RelayFigures {
  readonly threads: number
  readonly waiting: number
  readonly inHand: number
  /** Since the start: pieces of work taken, batches they were put into, and threads that died. */
  readonly taken: number
  readonly batches: number
  readonly deaths: number
}

type Outcome = RelayValue | RelayCryptoError

interface Job {
  readonly id: number
  readonly sender: string
  /** In signatures or openings, roughly. */
  readonly cost: number
  readonly work: RelayWork
  readonly settle: (outcome: Outcome) => void
  /** Threads that died with it in hand. */
  deaths: number
}

/**
 * Cost in one thread's hands: some milliseconds of work, so that a death costs little. It is filled up when it has less
 * than half of that, so that work goes over in batches and the thread never waits for it.
 */
const inHandCost = 32
const fillBelow = 16
/** A piece of work that so many threads died over is given up. */
const maximumDeaths = 3
const openTimeoutMs = 30_000
/** Pauses before a dead thread is started again, by consecutive deaths. */
const restartDelaysMs = [0, 50, 200, 1_000, 5_000]
/** A thread needs some 10 MB; one that takes more than this has run wild, and is replaced. */
const resourceLimits = { maxOldGenerationSizeMb: 192 }

/** What of the keys a thread needs, as a plain value. */
const plainKeys = ({ agreements, signer }: RelayKeys): RelayKeys => ({
  signer: { seed: signer.seed, signingKey: signer.signingKey },
  agreements: new Map(agreements)
})

/** The place of one thread. */
class Seat {
  worker: Worker | undefined = undefined
  ready = false
  /** The keys that the thread knows. */
  told: RelayKeys["agreements"] | undefined = undefined
  readonly inHand = new Map<number, Job>()
  load = 0
  deaths = 0
  /** Takes nothing until it has nothing in hand. */
  isAlone = false
  silence: NodeJS.Timeout | undefined = undefined
  restart: NodeJS.Timeout | undefined = undefined
}

export class RelayPool {
  private readonly options: RelayPoolOptions
  private readonly seats: ReadonlyArray<Seat>
  private readonly queue: FairQueue<Job>
  /** What threads died over. */
  private suspects: Array<Job> = []
  private closing = false
  private flushScheduled = false
  private nextId = 0
  private batches = 0
  private deaths = 0

  constructor(options: RelayPoolOptions) {
    this.options = options
    this.seats = Array.from({ length: options.threads }, () => new Seat())
    this.queue = new FairQueue({
      total: options.maximumQueue ?? 16_384,
      perKey: options.maximumPerSender ?? 128
    })
  }

  /** Starts the threads, and waits for none: work does. */
  open(): void {
    for (const seat of this.seats) this.start(seat)
  }

  private start(seat: Seat): void {
    const { agreements } = this.options.keys
    const role: RelayRole = {
      role: "postern/relay",
      engine: this.options.engine,
      keys: plainKeys(this.options.keys)
    }
    const settings = { workerData: role, name: "relay", execArgv: [], argv: [], resourceLimits }
    const worker = new Worker(this.options.entry, settings)
    seat.worker = worker
    seat.told = agreements
    let lastError = "it ended without a word"
    const timer = setTimeout(() => {
      lastError = `it was not ready within ${openTimeoutMs} ms`
      void worker.terminate()
    }, openTimeoutMs)
    worker.on("message", (message: FromRelayThread) => {
      if (message.type === "ready") {
        clearTimeout(timer)
        seat.ready = true
        this.flush()
      } else this.settle(seat, message.results)
    })
    worker.on("error", (error) => {
      lastError = error instanceof Error ? error.message : String(error)
    })
    worker.on("exit", () => {
      clearTimeout(timer)
      this.bury(seat, lastError)
    })
  }

  /** A thread has ended: its work waits for another, and another thread takes its place. */
  private bury(seat: Seat, reason: string): void {
    clearTimeout(seat.silence)
    seat.ready = false
    seat.worker = undefined
    seat.load = 0
    seat.isAlone = false
    const orphans = [...seat.inHand.values()]
    seat.inHand.clear()
    if (this.closing) return
    for (const job of orphans) {
      job.deaths++
      if (job.deaths < maximumDeaths) this.suspects.push(job)
      else
        job.settle(
          new RelayCryptoError({ code: "died", reason: `${job.deaths} threads ended over it: ${reason}` })
        )
    }
    this.deaths++
    this.options.onTrouble?.(`a thread of broker services ended and is started again: ${reason}`)
    const delayMs = restartDelaysMs[Math.min(seat.deaths, restartDelaysMs.length - 1)] as number
    seat.deaths++
    seat.restart = setTimeout(() => {
      if (!this.closing) this.start(seat)
    }, delayMs)
    seat.restart.unref()
    this.flush()
    if (this.seats.every(({ deaths, ready }) => !ready && deaths > maximumDeaths))
      this.failWaiting(new RelayCryptoError({ code: "died", reason: `no thread can be started: ${reason}` }))
  }

  /** Who waits is told, rather than to wait for threads that do not come. */
  private failWaiting(error: RelayCryptoError): void {
    const waiting = [...this.suspects, ...this.queue.drain()]
    this.suspects = []
    for (const job of waiting) job.settle(error)
  }

  private settle(seat: Seat, results: Extract<FromRelayThread, { type: "results" }>["results"]): void {
    seat.deaths = 0
    const settled = results.map((result) => {
      const job = seat.inHand.get(result.id)
      seat.inHand.delete(result.id)
      seat.load -= job?.cost ?? 0
      return [job, result] as const
    })
    if (seat.inHand.size === 0) seat.isAlone = false
    this.watch(seat)
    this.flush()
    for (const [job, result] of settled)
      job?.settle(result.ok ? result.value : new RelayCryptoError({ code: "failed", reason: result.reason }))
  }

  /** A thread that is silent for long with work in hand is ended. */
  private watch(seat: Seat): void {
    clearTimeout(seat.silence)
    if (seat.inHand.size === 0) return
    seat.silence = setTimeout(() => void seat.worker?.terminate(), this.options.silenceMs ?? 30_000)
    seat.silence.unref()
  }

  /** The ready thread with the least in hand that may take more, on top of what it is being given. */
  private freest(batches: ReadonlyMap<Seat, unknown>): Seat | undefined {
    let found: Seat | undefined
    for (const seat of this.seats) {
      const limit = batches.has(seat) ? inHandCost : fillBelow
      const mayTake = seat.ready && !seat.isAlone && seat.load < limit
      if (mayTake && (found === undefined || seat.load < found.load)) found = seat
    }
    return found
  }

  private assign(seat: Seat, job: Job, batches: Map<Seat, Array<Job>>): void {
    seat.inHand.set(job.id, job)
    seat.load += job.cost
    const batch = batches.get(seat)
    if (batch === undefined) batches.set(seat, [job])
    else batch.push(job)
  }

  /** What threads died over is done first, by threads that have nothing else to lose. */
  private placeSuspects(batches: Map<Seat, Array<Job>>): void {
    for (let job = this.suspects[0]; job !== undefined; job = this.suspects[0]) {
      const idle = this.seats.find((seat) => seat.ready && seat.inHand.size === 0)
      if (idle === undefined) {
        if (this.seats.some((seat) => seat.isAlone)) return
        const reserved = this.seats.find(({ ready }) => ready)
        if (reserved !== undefined) reserved.isAlone = true
        return
      }
      this.suspects.shift()
      idle.isAlone = true
      this.assign(idle, job, batches)
    }
  }

  /** Hands out what waits, in turns, as far as threads take more. */
  private flush(): void {
    const batches = new Map<Seat, Array<Job>>()
    this.placeSuspects(batches)
    for (let seat = this.freest(batches); seat !== undefined; seat = this.freest(batches)) {
      const job = this.queue.take()
      if (job === undefined) break
      this.assign(seat, job, batches)
    }
    for (const [seat, jobs] of batches) this.send(seat, jobs)
  }

  private send(seat: Seat, jobs: ReadonlyArray<Job>): void {
    const { keys } = this.options
    const post = (message: ToRelayThread) => seat.worker?.postMessage(message)
    this.batches++
    if (seat.told !== keys.agreements) {
      post({ type: "keys", keys: plainKeys(keys) })
      seat.told = keys.agreements
    }
    try {
      post({ type: "work", items: jobs.map(({ id, work }) => ({ id, work })) })
    } catch (error) {
      // Something cannot be cloned: a mistake of ours, which must not stall the others' work.
      const reason = error instanceof Error ? error.message : String(error)
      return this.settle(
        seat,
        jobs.map(({ id }) => ({ id, ok: false, reason }))
      )
    }
    this.watch(seat)
  }

  /** Adds work of a sender. Gives the way to withdraw it, which works until a thread has it. */
  submit(sender: string, cost: number, work: RelayWork, settle: Job["settle"]): () => void {
    if (this.closing) {
      settle(new RelayCryptoError({ code: "closed", reason: "broker services end" }))
      return () => undefined
    }
    const job: Job = { id: this.nextId++, sender, cost, work, settle, deaths: 0 }
    if (!this.queue.offer(sender, job)) {
      settle(new RelayCryptoError({ code: "overloaded", reason: `${this.queue.size} pieces of work wait` }))
      return () => undefined
    }
    if (!this.flushScheduled) {
      this.flushScheduled = true
      // After this turn of the event loop, so that what comes in one turn goes to a thread together.
      setImmediate(() => {
        this.flushScheduled = false
        this.flush()
      })
    }
    return () => {
      if (!this.queue.remove(sender, job)) this.suspects = this.suspects.filter((other) => other !== job)
    }
  }

  /** Ends the threads; what was not done fails as `closed`. */
  async close(): Promise<void> {
    this.closing = true
    const inHand = this.seats.flatMap((seat) => [...seat.inHand.values()])
    const ended = new RelayCryptoError({ code: "closed", reason: "broker services end" })
    const workers = this.seats.map((seat) => {
      clearTimeout(seat.restart)
      clearTimeout(seat.silence)
      return seat.worker?.terminate()
    })
    for (const job of inHand) job.settle(ended)
    this.failWaiting(ended)
    await Promise.all(workers)
  }

  figures(): RelayFigures {
    const inHand = this.seats.reduce((sum, seat) => sum + seat.inHand.size, 0)
    const { batches, deaths, nextId, queue, seats } = this
    return {
      threads: seats.length,
      waiting: queue.size + this.suspects.length,
      inHand,
      taken: nextId,
      batches,
      deaths
    }
  }

  /** Ends a thread as a crash would. For tests of what follows. */
  kill(index: number): void {
    void this.seats[index]?.worker?.terminate()
  }
}

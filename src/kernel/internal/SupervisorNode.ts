/**
 * A supervisor at work: starts its children in order, restarts them by its strategy, gives up or degrades when they fail
 * too often, and stops them in reverse order.
 *
 * One-for-one restarts run beside each other, one fiber per failing child, so that a child that hangs while it restarts
 * holds up nobody. The group strategies restart in one procedure at a time, in order.
 */
import { Effect, Fiber } from "effect"
import { Backoff } from "../Backoff.ts"
import type { AnySpec, SupervisorOptions } from "../ChildSpec.ts"
import type { Inspection } from "../Inspection.ts"
import { Intensity } from "./Intensity.ts"
import type { Kernel } from "./Kernel.ts"
import { makeNode } from "./makeNode.ts"
import type { ChildView, Down, LastFailure, Node, Owner } from "./Node.ts"

type State = "idle" | "starting" | "running" | "stopping" | "waiting" | "stopped"

/** What a supervisor remembers of a child. */
interface Child {
  readonly node: Node
  readonly restartType: "permanent" | "transient" | "temporary"
  readonly intensity: Intensity
  restarts: number
  /** Failures in a row; a life longer than the period ends the row. */
  streak: number
  delays: ReadonlyArray<number>
  upSinceMs: number
  up: boolean
  /** No longer supervised: ended, and its restart type says so. */
  done: boolean
  degraded: boolean
  lastFailure: LastFailure | undefined
}

export class SupervisorNode implements Node, Owner {
  readonly kind = "supervisor"
  readonly id: string
  readonly path: string
  private readonly kernel: Kernel
  private readonly options: SupervisorOptions
  private readonly owner: Owner
  private readonly children: Array<Child>
  private readonly intensity: Intensity
  private state: State = "idle"
  private startedMs = 0
  private started: ((failure: Down | undefined) => void) | undefined = undefined
  /** Fibers of starts and restarts in progress. */
  private readonly jobs = new Set<Fiber.Fiber<void>>()
  /** Group strategies: children that went down and wait for the procedure. */
  private fallen: Array<Child> = []
  private regrouping = false
  private stopCalls: Array<{ readonly forGood: boolean; readonly done: () => void }> | undefined = undefined

  constructor(
    kernel: Kernel,
    parentPath: string,
    spec: { readonly options: SupervisorOptions; readonly children: ReadonlyArray<AnySpec> },
    owner: Owner
  ) {
    this.kernel = kernel
    this.options = spec.options
    this.id = spec.options.id
    this.path = `${parentPath}/${this.id}`
    this.owner = owner
    this.intensity = new Intensity(spec.options.intensity, spec.options.periodMs)
    this.children = spec.children.map((child) => ({
      node: makeNode(kernel, this.path, child, this),
      restartType: child.options.restart,
      intensity: new Intensity(spec.options.intensity, spec.options.periodMs),
      restarts: 0,
      streak: 0,
      delays: [],
      upSinceMs: 0,
      up: false,
      done: false,
      degraded: false,
      lastFailure: undefined
    }))
  }

  // ---------------------------------------------------------------------------------------------------------------
  // Start

  begin(started: (failure: Down | undefined) => void): void {
    this.state = "starting"
    this.started = started
    this.startedMs = this.kernel.deadlines.now()
    this.intensity.clear()
    this.fallen = []
    this.regrouping = this.options.strategy !== "one-for-one"
    for (const child of this.children) {
      child.done = false
      child.streak = 0
    }
    this.job(
      Effect.andThen(this.startFrom(0), () =>
        Effect.sync(() => {
          this.regrouping = false
          this.isUp()
          this.regroupIfNeeded()
        })
      )
    )
  }

  /** Reports the start, once. */
  private isUp(): void {
    if (this.state === "starting") {
      this.state = "running"
    }
    const { started } = this
    this.started = undefined
    started?.(undefined)
  }

  /** Starts the children from `index` on that are not up, each after the one before it. */
  private startFrom(index: number): Effect.Effect<void> {
    return Effect.forEach(
      this.children.slice(index),
      (child) => (child.up || child.done ? Effect.void : this.startInOrder(child)),
      { discard: true }
    )
  }

  /** Starts one child and tries again by the back-off until it is up or the supervisor gives up. */
  private startInOrder(child: Child): Effect.Effect<void> {
    return Effect.flatMap(this.startOnce(child), (failure): Effect.Effect<void> => {
      if (failure === undefined) {
        return Effect.void
      }
      if (!this.countFailure(child, failure)) {
        return Effect.never
      }
      if (child.restartType === "temporary") {
        this.release(child)
        return Effect.void
      }
      if (this.options.optional) {
        if (this.options.strategy === "one-for-one") {
          this.restartAlone(child)
          return Effect.void
        }
        this.isUp()
      }
      return Effect.andThen(this.pause(child), this.startInOrder(child))
    })
  }

  private startOnce(child: Child): Effect.Effect<Down | undefined> {
    return Effect.callback<Down | undefined>((resume) => {
      child.node.begin((failure) => {
        child.up = failure === undefined
        child.upSinceMs = this.kernel.deadlines.now()
        resume(Effect.succeed(failure))
      })
    })
  }

  // ---------------------------------------------------------------------------------------------------------------
  // Failures and restarts

  childDown(node: Node, down: Down): void {
    const child = this.children.find((candidate) => candidate.node === node)
    if (child === undefined || this.state === "stopping" || this.state === "waiting" || this.state === "stopped") {
      return
    }
    child.up = false
    if (child.restartType === "temporary" || (child.restartType === "transient" && down._tag === "Normal")) {
      if (down._tag === "Crash") {
        child.lastFailure = { atMs: this.kernel.wallMs(), reason: down.reason }
      }
      this.release(child)
      return
    }
    if (!this.countFailure(child, down)) {
      return
    }
    if (this.options.strategy === "one-for-one") {
      this.restartAlone(child)
    } else {
      this.fallen.push(child)
      this.regroupIfNeeded()
    }
  }

  /** Lets go of a child that will not be started again. */
  private release(child: Child): void {
    child.done = true
    child.node.retire()
  }

  /** Counts a failure. False: there were too many, and this supervisor is giving up. */
  private countFailure(child: Child, down: Down): boolean {
    const now = this.kernel.deadlines.now()
    if (child.upSinceMs > 0 && now - child.upSinceMs > this.options.periodMs) {
      child.streak = 0
      child.degraded = false
    }
    child.restarts++
    this.kernel.totals.restarts++
    if (down._tag === "Crash") {
      child.lastFailure = { atMs: this.kernel.wallMs(), reason: down.reason }
    }
    const reason = down._tag === "Crash" ? down.reason : "it ended"
    if (this.options.optional) {
      if (!child.intensity.count(now) && !child.degraded) {
        child.degraded = true
        child.streak = 0
        this.trace(child.node.path, "degraded")
        this.log(`${child.node.path} is degraded: it fails too often and is tried at long intervals: ${reason}`)
      }
      return true
    }
    if (this.intensity.count(now)) {
      this.log(`${child.node.path} is started again: ${reason}`)
      return true
    }
    this.giveUp(`${child.node.path} failed more than ${this.options.intensity} times: ${reason}`)
    return false
  }

  /** Waits as long as the child's back-off says. */
  private pause(child: Child): Effect.Effect<void> {
    return Effect.suspend(() => {
      const backoff = child.degraded ? this.options.degradedBackoff : this.options.backoff
      const attempt = child.streak++
      const sampled = attempt === 0 ? Backoff.sample(backoff) : Effect.succeed(child.delays)
      return Effect.flatMap(sampled, (delays) => {
        child.delays = delays
        const delayMs = delays[Math.min(attempt, delays.length - 1)] ?? 0
        this.trace(child.node.path, "restarting")
        return this.kernel.deadlines.sleep(delayMs)
      })
    })
  }

  /** One-for-one: starts the child again beside whatever else happens. */
  private restartAlone(child: Child): void {
    this.job(
      Effect.flatMap(Effect.andThen(this.pause(child), this.startOnce(child)), (failure) =>
        Effect.sync(() => {
          if (failure !== undefined) {
            this.childDown(child.node, failure)
          }
        })
      )
    )
  }

  /** Group strategies: begins the procedure unless it is running. */
  private regroupIfNeeded(): void {
    if (this.fallen.length > 0 && !this.regrouping) {
      this.regrouping = true
      this.job(this.regroup)
    }
  }

  /** Stops the siblings that share the fate of the fallen, waits, and starts all of them in order. */
  private readonly regroup: Effect.Effect<void> = Effect.suspend(() => {
    const { fallen, children } = this
    this.fallen = []
    const first =
      this.options.strategy === "one-for-all" ? 0 : Math.min(...fallen.map((child) => children.indexOf(child)))
    const culprit = fallen[0] as Child
    return Effect.andThen(
      this.stopDownTo(first, false),
      Effect.andThen(
        this.pause(culprit),
        Effect.andThen(this.startFrom(first), () => {
          this.regrouping = false
          this.isUp()
          return Effect.sync(() => this.regroupIfNeeded())
        })
      )
    )
  })

  // ---------------------------------------------------------------------------------------------------------------
  // The end

  /** Stops the children in reverse order down to `index`. */
  private stopDownTo(index: number, forGood: boolean): Effect.Effect<void> {
    return Effect.forEach(
      this.children.slice(index).reverse(),
      (child) =>
        Effect.callback<void>((resume) => {
          child.up = false
          child.node.stop(forGood, () => resume(Effect.void))
        }),
      { discard: true }
    )
  }

  /** Too many failures: everything below is stopped, and the parent decides. */
  private giveUp(reason: string): void {
    this.trace(this.path, "gave-up")
    this.log(`${this.path} gives up: ${reason}`)
    const during = this.state === "starting" ? "start" : "run"
    this.tearDown(false, () => {
      const down: Down = { _tag: "Crash", reason, during }
      const { started } = this
      this.started = undefined
      if (started === undefined) {
        this.owner.childDown(this, down)
      } else {
        started(down)
      }
    })
  }

  stop(forGood: boolean, done: () => void): void {
    if (this.state === "stopped" || this.state === "idle" || (this.state === "waiting" && this.stopCalls === undefined)) {
      if (forGood) {
        this.retire()
      }
      done()
      return
    }
    this.tearDown(forGood, done)
  }

  /** Ends all jobs, then all children in reverse order. Calls while it goes on join it. */
  private tearDown(forGood: boolean, done: () => void): void {
    if (this.stopCalls !== undefined) {
      this.stopCalls.push({ forGood, done })
      return
    }
    const calls = [{ forGood, done }]
    this.stopCalls = calls
    this.state = "stopping"
    const jobs = [...this.jobs]
    this.kernel.fork(
      Effect.andThen(
        Effect.andThen(Effect.yieldNow, Fiber.interruptAll(jobs)),
        Effect.andThen(
          Effect.suspend(() => this.stopDownTo(0, calls.some((call) => call.forGood))),
          Effect.sync(() => {
            this.stopCalls = undefined
            this.state = "waiting"
            const last = calls.some((call) => call.forGood)
            if (last) {
              this.retire()
            }
            const { started } = this
            if (last && started !== undefined) {
              this.started = undefined
              started({ _tag: "Crash", reason: "it was stopped while it started", during: "start" })
            }
            for (const call of calls) {
              call.done()
            }
          })
        )
      )
    )
  }

  retire(): void {
    this.state = "stopped"
    for (const child of this.children) {
      child.node.retire()
    }
  }

  // ---------------------------------------------------------------------------------------------------------------
  // Small things

  private job(effect: Effect.Effect<void>): void {
    const fiber = this.kernel.fork(effect)
    this.jobs.add(fiber)
    fiber.addObserver(() => this.jobs.delete(fiber))
  }

  private log(text: string): void {
    this.kernel.fork(Effect.logWarning(text))
  }

  private trace(path: string, outcome: "restarting" | "degraded" | "gave-up"): void {
    this.kernel.trace?.({ atMs: this.kernel.deadlines.now(), path, tag: "", outcome })
  }

  inspect(view: ChildView, childLimit: number): Inspection {
    const now = this.kernel.deadlines.now()
    const isAlive = this.state === "running" || this.state === "starting"
    const degraded = this.children.some((child) => child.degraded && !child.up)
    return {
      id: this.id,
      path: this.path,
      kind: "supervisor",
      state: (degraded && isAlive) || (view.degraded && this.state === "waiting") ? "degraded" : this.state,
      restarts: view.restarts,
      lastFailure: view.lastFailure ?? null,
      ageMs: isAlive ? now - this.startedMs : null,
      beatAgeMs: null,
      mailbox: null,
      handled: 0,
      failedReplies: 0,
      withdrawn: 0,
      lateReplies: 0,
      refused: 0,
      tasks: 0,
      childCount: this.children.length,
      children: this.children.slice(0, childLimit).map((child) => child.node.inspect(child, childLimit))
    }
  }
}

/**
 * A supervisor at work: starts its children in order, restarts them by its strategy, gives up or degrades when they fail
 * too often, and stops them in reverse order.
 *
 * One-for-one restarts run beside each other, one fiber per failing child, so that a child that hangs while it restarts
 * holds up nobody. The group strategies restart in one procedure at a time, in order.
 */
import { Effect, Fiber } from "effect"
import type { AnySpec, RestartType, SupervisorOptions } from "../ChildSpec.ts"
import type { Inspection } from "../Inspection.ts"
import { Intensity } from "./Intensity.ts"
import { inspectParent } from "./inspectParent.ts"
import type { Kernel } from "./Kernel.ts"
import type { ChildView, Down, MakeNode, Node, Owner } from "./Node.ts"
import { RestartRecord, reasonOf } from "./RestartRecord.ts"

type State = "idle" | "starting" | "running" | "stopping" | "waiting" | "stopped"

/** What a supervisor remembers of a child. */
interface Child {
  readonly node: Node
  readonly restartType: RestartType
  readonly record: RestartRecord
  up: boolean
  /** No longer supervised: ended, and its restart type says so. */
  done: boolean
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
    owner: Owner,
    makeNode: MakeNode
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
      record: new RestartRecord(kernel, `${this.path}/${child.options.id}`, spec.options),
      up: false,
      done: false
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
      child.record.reset()
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
      if (child.restartType === "temporary") {
        child.record.note(failure)
        this.release(child)
        return Effect.void
      }
      if (!this.countFailure(child, failure)) {
        return Effect.never
      }
      if (this.options.optional) {
        if (this.options.strategy === "one-for-one") {
          this.restartAlone(child)
          return Effect.void
        }
        this.isUp()
      }
      return Effect.andThen(child.record.pause, this.startInOrder(child))
    })
  }

  private startOnce(child: Child): Effect.Effect<Down | undefined> {
    return Effect.callback<Down | undefined>((resume) => {
      child.node.begin((failure) => {
        child.up = failure === undefined
        if (child.up) {
          child.record.isUp()
        }
        resume(Effect.succeed(failure))
      })
    })
  }

  // ---------------------------------------------------------------------------------------------------------------
  // Failures and restarts

  childDown(node: Node, down: Down): void {
    const child = this.children.find((candidate) => candidate.node === node)
    if (
      child === undefined ||
      this.state === "stopping" ||
      this.state === "waiting" ||
      this.state === "stopped"
    ) {
      return
    }
    child.up = false
    if (child.restartType === "temporary" || (child.restartType === "transient" && down._tag === "Normal")) {
      child.record.note(down)
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
    child.record.count(down)
    if (this.options.optional) {
      child.record.degradeIfTooOften(down)
      return true
    }
    if (this.intensity.count(this.kernel.deadlines.now())) {
      this.kernel.warn(`${child.node.path} is started again: ${reasonOf(down)}`)
      return true
    }
    this.giveUp(`${child.node.path} failed more than ${this.options.intensity} times: ${reasonOf(down)}`)
    return false
  }

  /** One-for-one: starts the child again beside whatever else happens. */
  private restartAlone(child: Child): void {
    this.job(
      Effect.flatMap(Effect.andThen(child.record.pause, this.startOnce(child)), (failure) =>
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
    const { children } = this
    // Some may have come back with the procedure that was running when they fell.
    const fallen = this.fallen.filter((child) => !child.up && !child.done)
    this.fallen = []
    if (fallen.length === 0) {
      this.regrouping = false
      return Effect.void
    }
    const first =
      this.options.strategy === "one-for-all"
        ? 0
        : Math.min(...fallen.map((child) => children.indexOf(child)))
    const culprit = fallen[0] as Child
    return Effect.andThen(
      this.stopGroup(first),
      Effect.andThen(
        culprit.record.pause,
        Effect.andThen(this.startFrom(first), () => {
          this.regrouping = false
          this.isUp()
          return Effect.sync(() => this.regroupIfNeeded())
        })
      )
    )
  })

  /** Stops a group that is to start again. A temporary child is let go; a transient one that had ended comes back. */
  private stopGroup(first: number): Effect.Effect<void> {
    return Effect.andThen(
      this.stopDownTo(first, false),
      Effect.sync(() => {
        for (const child of this.children.slice(first)) {
          child.done = false
          if (child.restartType === "temporary") {
            this.release(child)
          }
        }
      })
    )
  }

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
    if (this.stopCalls !== undefined) {
      return
    }
    this.kernel.trace?.({ atMs: this.kernel.deadlines.now(), path: this.path, tag: "", outcome: "gave-up" })
    this.kernel.warn(`${this.path} gives up: ${reason}`)
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
    if (
      this.state === "stopped" ||
      this.state === "idle" ||
      (this.state === "waiting" && this.stopCalls === undefined)
    ) {
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
          Effect.suspend(() =>
            this.stopDownTo(
              0,
              calls.some((call) => call.forGood)
            )
          ),
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
    // A job that ends just then may begin another, which the stop would not know and so not end.
    if (this.stopCalls !== undefined) {
      return
    }
    const fiber = this.kernel.fork(effect)
    this.jobs.add(fiber)
    fiber.addObserver(() => this.jobs.delete(fiber))
  }

  inspect(view: ChildView, childLimit: number): Inspection {
    const isAlive = this.state === "running" || this.state === "starting"
    const isDegraded = isAlive && this.children.some((child) => child.record.degraded && !child.up)
    return inspectParent(
      this,
      isDegraded ? "degraded" : this.state,
      view,
      isAlive ? this.kernel.deadlines.now() - this.startedMs : null,
      this.children.length,
      this.children.slice(0, childLimit).map((child) => child.node.inspect(child.record, childLimit))
    )
  }
}

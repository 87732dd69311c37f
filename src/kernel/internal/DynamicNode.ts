/**
 * A supervisor whose children come and go by key: a send starts a child, idleness stops it, and no message is lost in
 * between, because the child's cell (its mailbox) stays as long as there is anything in it.
 */
import { Effect, Fiber } from "effect"
import { Backoff } from "../Backoff.ts"
import { ChildId, checkSpec, type ChildSpec, type DynamicOptions } from "../ChildSpec.ts"
import type { Timer } from "../Deadlines.ts"
import { BadSpec, NotFound, Stopped, TooManyChildren } from "../Errors.ts"
import type { DynamicKey } from "../ActorKey.ts"
import type { Inspection } from "../Inspection.ts"
import { Schema } from "effect"
import { Cell } from "./Cell.ts"
import { Intensity } from "./Intensity.ts"
import type { Kernel } from "./Kernel.ts"
import type { ChildView, Down, LastFailure, Node, Owner } from "./Node.ts"

interface Child {
  readonly cell: Cell
  readonly intensity: Intensity
  restarts: number
  streak: number
  delays: ReadonlyArray<number>
  upSinceMs: number
  degraded: boolean
  lastFailure: LastFailure | undefined
  idleTimer: Timer | undefined
  handledBefore: number
  restarting: Fiber.Fiber<void> | undefined
}

const isChildId = Schema.is(ChildId)

export class DynamicNode implements Node, Owner {
  readonly kind = "dynamic"
  readonly id: string
  readonly path: string
  private readonly kernel: Kernel
  private readonly options: DynamicOptions
  private readonly key: DynamicKey<any>
  private readonly makeSpec: (id: string) => ChildSpec<any, any>
  private readonly children = new Map<string, Child>()
  private state: "idle" | "running" | "stopping" | "waiting" | "stopped" = "idle"
  private startedMs = 0
  private stopCalls: Array<{ readonly forGood: boolean; readonly done: () => void }> | undefined = undefined

  constructor(
    kernel: Kernel,
    parentPath: string,
    spec: {
      readonly options: DynamicOptions
      readonly key: DynamicKey<any>
      readonly child: (id: string) => ChildSpec<any, any>
    },
    _owner: Owner
  ) {
    this.kernel = kernel
    this.options = spec.options
    this.id = spec.options.id
    this.path = `${parentPath}/${this.id}`
    this.key = spec.key
    this.makeSpec = spec.child
    kernel.registry.set(spec.key.name, this)
  }

  begin(started: (failure: Down | undefined) => void): void {
    this.state = "running"
    this.startedMs = this.kernel.deadlines.now()
    // Children that outlived this supervisor's last life with messages waiting go on now.
    for (const child of this.children.values()) {
      if (child.cell.life === undefined) {
        this.startChild(child)
      }
    }
    started(undefined)
  }

  /** The cell of the child `id`; made and started if there is none. */
  resolve(id: string | undefined, tag: string): Cell | Error {
    const known = id === undefined ? undefined : this.children.get(id)
    if (known !== undefined) {
      return known.cell
    }
    if (id === undefined || !isChildId(id)) {
      return this.undelivered(new NotFound({ path: `${this.path}/${id ?? "?"}`, tag }), "not-found", tag)
    }
    if (this.state === "stopping" || this.state === "stopped") {
      return this.undelivered(new Stopped({ path: `${this.path}/${id}`, tag }), "stopped", tag)
    }
    if (this.children.size >= this.options.maximum) {
      const { maximum } = this.options
      return this.undelivered(new TooManyChildren({ path: this.path, tag, maximum }), "full", tag)
    }
    return this.add(id).cell
  }

  private undelivered(error: Error, reason: "not-found" | "stopped" | "full", tag: string): Error {
    this.kernel.deadLetters.record(this.path, tag, reason)
    return error
  }

  private add(id: string): Child {
    const made = this.makeSpec(id)
    const spec = { ...made, key: undefined, options: { ...made.options, id } }
    // A wrong specification is the programmer's mistake and stops the sender, by name.
    const problem = Effect.runSync(Effect.result(checkSpec(spec, this.path)))
    if (problem._tag === "Failure") {
      throw problem.failure satisfies BadSpec
    }
    const child: Child = {
      cell: new Cell(this.kernel, this.path, spec, this),
      intensity: new Intensity(this.options.intensity, this.options.periodMs),
      restarts: 0,
      streak: 0,
      delays: [],
      upSinceMs: 0,
      degraded: false,
      lastFailure: undefined,
      idleTimer: undefined,
      handledBefore: 0,
      restarting: undefined
    }
    this.children.set(id, child)
    return child
  }

  /** A message came for a child that has no life. */
  messageForIdle(node: Node): void {
    const child = this.children.get(node.id)
    if (child !== undefined && this.state === "running") {
      this.startChild(child)
    }
  }

  private startChild(child: Child): void {
    child.cell.begin((failure) => {
      if (failure === undefined) {
        child.upSinceMs = this.kernel.deadlines.now()
        child.handledBefore = -1
        this.watchIdle(child)
      } else {
        this.childDown(child.cell, failure)
      }
    })
  }

  // ---------------------------------------------------------------------------------------------------------------
  // Passivation

  private watchIdle(child: Child): void {
    const { passivateAfterMs } = this.options
    if (passivateAfterMs > 0) {
      child.handledBefore = child.cell.handled
      child.idleTimer = this.kernel.deadlines.after(passivateAfterMs, () => this.passivateIfIdle(child))
    }
  }

  private passivateIfIdle(child: Child): void {
    child.idleTimer = undefined
    const { cell } = child
    const { life } = cell
    if (life === undefined || cell.state !== "running") {
      return
    }
    const isBusy = cell.mailbox.depth > 0 || life.inHand !== undefined || life.tasks > 0
    if (isBusy || cell.handled !== child.handledBefore || (life.spawned?.children.size ?? 0) > 0) {
      this.watchIdle(child)
      return
    }
    cell.stop(false, () => this.passivated(child))
  }

  /** Messages that came while the child was stopping bring it back; otherwise it is forgotten. */
  private passivated(child: Child): void {
    if (this.state !== "running" || child.cell.state === "stopped") {
      return
    }
    if (child.cell.mailbox.depth > 0) {
      this.startChild(child)
    } else {
      this.forget(child)
    }
  }

  private forget(child: Child): void {
    this.cancelTimers(child)
    child.cell.retire()
    this.children.delete(child.cell.id)
  }

  private cancelTimers(child: Child): void {
    if (child.idleTimer !== undefined) {
      this.kernel.deadlines.cancel(child.idleTimer)
      child.idleTimer = undefined
    }
  }

  // ---------------------------------------------------------------------------------------------------------------
  // Failures

  childDown(node: Node, down: Down): void {
    const child = this.children.get(node.id)
    if (child === undefined || child.cell !== node || this.state !== "running") {
      return
    }
    this.cancelTimers(child)
    const { restart } = child.cell.options
    const ends = restart === "temporary" || (restart === "transient" && down._tag === "Normal")
    if (ends || down._tag === "Normal") {
      // A permanent child that ended of itself is wanted again only when the next message comes.
      if (!ends && child.cell.mailbox.depth > 0) {
        this.startChild(child)
      } else {
        this.forget(child)
      }
      return
    }
    const now = this.kernel.deadlines.now()
    if (child.upSinceMs > 0 && now - child.upSinceMs > this.options.periodMs) {
      child.streak = 0
      child.degraded = false
    }
    child.restarts++
    this.kernel.totals.restarts++
    child.lastFailure = { atMs: this.kernel.wallMs(), reason: down.reason }
    if (!child.intensity.count(now) && !child.degraded) {
      child.degraded = true
      child.streak = 0
      this.kernel.trace?.({ atMs: now, path: node.path, tag: "", outcome: "degraded" })
      this.kernel.fork(Effect.logWarning(`${node.path} is degraded: it fails too often: ${down.reason}`))
    }
    const fiber = this.kernel.fork(
      Effect.andThen(
        this.pause(child),
        Effect.sync(() => {
          child.restarting = undefined
          this.startChild(child)
        })
      )
    )
    child.restarting = fiber.pollUnsafe() === undefined ? fiber : undefined
  }

  private pause(child: Child): Effect.Effect<void> {
    return Effect.suspend(() => {
      const attempt = child.streak++
      const backoff = child.degraded ? this.options.degradedBackoff : this.options.backoff
      const sampled = attempt === 0 ? Backoff.sample(backoff) : Effect.succeed(child.delays)
      return Effect.flatMap(sampled, (delays) => {
        child.delays = delays
        this.kernel.trace?.({
          atMs: this.kernel.deadlines.now(),
          path: child.cell.path,
          tag: "",
          outcome: "restarting"
        })
        return this.kernel.deadlines.sleep(delays[Math.min(attempt, delays.length - 1)] ?? 0)
      })
    })
  }

  // ---------------------------------------------------------------------------------------------------------------
  // The end

  stop(forGood: boolean, done: () => void): void {
    if (this.stopCalls !== undefined) {
      this.stopCalls.push({ forGood, done })
      return
    }
    if (this.state !== "running") {
      if (forGood) {
        this.retire()
      }
      done()
      return
    }
    this.state = "stopping"
    const calls = [{ forGood, done }]
    this.stopCalls = calls
    this.kernel.fork(
      Effect.andThen(
        Effect.forEach([...this.children.values()].reverse(), (child) => this.stopChild(child, forGood), {
          discard: true,
          concurrency: 64
        }),
        Effect.sync(() => {
          this.stopCalls = undefined
          this.state = "waiting"
          if (calls.some((call) => call.forGood)) {
            this.retire()
          }
          for (const call of calls) {
            call.done()
          }
        })
      )
    )
  }

  private stopChild(child: Child, forGood: boolean): Effect.Effect<void> {
    this.cancelTimers(child)
    const restarting = child.restarting
    child.restarting = undefined
    return Effect.andThen(
      restarting === undefined ? Effect.void : Fiber.interrupt(restarting),
      Effect.callback<void>((resume) => {
        child.cell.stop(forGood, () => resume(Effect.void))
      })
    )
  }

  retire(): void {
    this.state = "stopped"
    for (const child of this.children.values()) {
      child.cell.retire()
    }
    this.children.clear()
  }

  inspect(view: ChildView, childLimit: number): Inspection {
    const now = this.kernel.deadlines.now()
    const shown = [...this.children.values()].slice(0, childLimit)
    return {
      id: this.id,
      path: this.path,
      kind: "dynamic",
      state: this.state,
      restarts: view.restarts,
      lastFailure: view.lastFailure ?? null,
      ageMs: this.state === "running" ? now - this.startedMs : null,
      beatAgeMs: null,
      mailbox: null,
      handled: 0,
      failedReplies: 0,
      withdrawn: 0,
      lateReplies: 0,
      refused: 0,
      tasks: 0,
      childCount: this.children.size,
      children: shown.map((child) => child.cell.inspect(child, childLimit))
    }
  }

  /** The protocol the children speak. */
  get protocol(): unknown {
    return this.key.protocol
  }
}

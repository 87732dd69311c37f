/**
 * A supervisor whose children come and go by key: a send starts a child, idleness stops it, and no message is lost in
 * between, because the child's cell (its mailbox) stays as long as there is anything in it.
 */
import { Effect, Fiber, Schema } from "effect"
import type { DynamicKey } from "../ActorKey.ts"
import { ChildId, type ChildSpec, checkSpec, type DynamicOptions } from "../ChildSpec.ts"
import type { Timer } from "../Deadlines.ts"
import { type BadSpec, NotFound, Stopped, TooManyChildren } from "../Errors.ts"
import type { Inspection } from "../Inspection.ts"
import { Cell } from "./Cell.ts"
import { inspectParent } from "./inspectParent.ts"
import type { Kernel } from "./Kernel.ts"
import type { ChildView, Down, Node, Owner } from "./Node.ts"
import { RestartRecord } from "./RestartRecord.ts"

interface Child {
  readonly cell: Cell
  readonly record: RestartRecord
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
    this.makeSpec = spec.child
    kernel.registry.set(spec.key.name, this)
  }

  begin(started: (failure: Down | undefined) => void): void {
    this.state = "running"
    this.startedMs = this.kernel.deadlines.now()
    // Children for which messages waited while this supervisor was down go on now.
    for (const child of [...this.children.values()]) {
      if (child.cell.mailbox.depth > 0) {
        this.startChild(child)
      } else {
        this.forget(child)
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
      record: new RestartRecord(this.kernel, `${this.path}/${id}`, this.options),
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
        child.record.isUp()
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
    child.record.count(down)
    child.record.degradeIfTooOften(down)
    const fiber = this.kernel.fork(
      Effect.andThen(
        child.record.pause,
        Effect.sync(() => {
          child.restarting = undefined
          this.startChild(child)
        })
      )
    )
    child.restarting = fiber.pollUnsafe() === undefined ? fiber : undefined
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
    return inspectParent(
      this,
      this.state,
      view,
      this.state === "running" ? this.kernel.deadlines.now() - this.startedMs : null,
      this.children.size,
      [...this.children.values()]
        .slice(0, childLimit)
        .map((child) => child.cell.inspect(child.record, childLimit))
    )
  }
}

/**
 * The context object that a life hands to its behaviour's factory.
 */
import { Cause, Effect, type Exit } from "effect"
import type { ActorKey, DynamicKey } from "../ActorKey.ts"
import type { ActorContext } from "../Behaviour.ts"
import type { ChildSpec } from "../ChildSpec.ts"
import { Letter } from "./Letter.ts"
import type { Life } from "./Life.ts"
import { CellAddress, NamedAddress, restartNamed } from "./Reference.ts"
import { Spawned } from "./Spawned.ts"

class Context {
  readonly self: CellAddress
  private readonly owner: Life

  constructor(life: Life) {
    this.owner = life
    this.self = new CellAddress(life.cell)
  }

  get path(): string {
    return this.owner.path
  }

  get life(): number {
    return this.owner.number
  }

  ref(key: ActorKey<any>): NamedAddress {
    return new NamedAddress(this.owner.cell.kernel, key.name, undefined)
  }

  refOf(key: DynamicKey<any>, id: string): NamedAddress {
    return new NamedAddress(this.owner.cell.kernel, key.name, id)
  }

  spawn(spec: ChildSpec<any, any>): Effect.Effect<unknown, unknown> {
    return Effect.withFiber((fiber) => {
      this.owner.spawned ??= new Spawned(this.owner)
      return this.owner.spawned.spawn(spec, fiber.context)
    })
  }

  startTask(
    task: Effect.Effect<any, any>,
    onExit: (exit: Exit.Exit<any, any>) => readonly [string, unknown?]
  ): Effect.Effect<void> {
    const life = this.owner
    return Effect.suspend(() => {
      const { maximumTasks } = life.cell.options
      if (life.tasks >= maximumTasks) {
        return Effect.die(new Error(`${life.path} runs ${maximumTasks} tasks already, its maximum`))
      }
      life.tasks++
      const reported = Effect.onExit(task, (exit) => Effect.sync(() => taskEnded(life, exit, onExit)))
      return Effect.asVoid(Effect.forkIn(reported, life.scope))
    })
  }

  restart(key: ActorKey<any>, reason: string): Effect.Effect<boolean> {
    return restartNamed(this.owner.cell.kernel, key, reason)
  }

  get stopSelf(): Effect.Effect<void> {
    return Effect.sync(() => this.owner.stopSelf())
  }

  get beat(): Effect.Effect<void> {
    return Effect.sync(() => {
      this.owner.beatMs = this.owner.cell.kernel.deadlines.now()
    })
  }

  handlers<H>(handlers: H): H {
    return handlers
  }
}

/** Brings the exit of a task back as a message to the same life, if that life is still there. */
const taskEnded = (
  life: Life,
  exit: Exit.Exit<any, any>,
  onExit: (exit: Exit.Exit<any, any>) => readonly [string, unknown?]
): void => {
  life.tasks--
  if (life.fenced) {
    life.refuse()
    return
  }
  if (!life.isAlive) {
    return
  }
  try {
    const [tag, payload] = onExit(exit)
    life.cell.sendForced(new Letter(life.cell, tag, payload, Number.POSITIVE_INFINITY, 0, undefined, life))
  } catch (defect) {
    life.crashWith(Cause.die(defect))
  }
}

/** Makes the context of one life. */
export const makeContext = (life: Life): ActorContext<any> =>
  new Context(life) as unknown as ActorContext<any>

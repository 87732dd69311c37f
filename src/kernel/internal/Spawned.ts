/**
 * Temporary children of one life: started by its handlers, never restarted, stopped with the life in reverse order.
 */
import { type Context, Effect } from "effect"
import type { ActorRef } from "../ActorRef.ts"
import { type ChildSpec, checkSpec } from "../ChildSpec.ts"
import { BadSpec, Fenced, type SpawnError, StartFailed } from "../Errors.ts"
import type { Cell } from "./Cell.ts"
import type { Life } from "./Life.ts"
import type { Down, Node, Owner } from "./Node.ts"
import { CellAddress } from "./Reference.ts"

export class Spawned implements Owner {
  private readonly life: Life
  readonly children = new Map<string, Cell>()

  constructor(life: Life) {
    this.life = life
  }

  /** `context` is the sender's: a child may use what the handler that starts it has been given. */
  spawn(
    spec: ChildSpec<any, any>,
    context: Context.Context<never>
  ): Effect.Effect<ActorRef<any>, SpawnError> {
    const { life } = this
    return Effect.andThen(
      checkSpec(spec, life.path),
      Effect.callback<ActorRef<any>, SpawnError>((resume) => {
        const { id } = spec.options
        const name = `${life.path}/${id}`
        if (life.fenced) {
          life.refuse()
          return resume(Effect.fail(new Fenced({ path: life.path })))
        }
        if (!life.isAlive) {
          return resume(
            Effect.fail(new StartFailed({ path: name, reason: "the life it belongs to has ended" }))
          )
        }
        const { registry } = life.cell.kernel
        if (spec.key !== undefined && registry.has(spec.key.name)) {
          const issue = `the key ${spec.key.name} is already bound to ${registry.get(spec.key.name)?.path}`
          return resume(Effect.fail(new BadSpec({ name, issue })))
        }
        if (this.children.has(id)) {
          return resume(
            Effect.fail(new BadSpec({ name, issue: "a temporary child with this id is still running" }))
          )
        }
        const cell = life.cell.makeChild(spec, this, context)
        this.children.set(id, cell)
        cell.begin((failure) => {
          if (failure === undefined) {
            resume(Effect.succeed(new CellAddress(cell) as never))
          } else {
            this.childDown(cell)
            const reason = failure._tag === "Crash" ? failure.reason : "it was stopped while it started"
            resume(Effect.fail(new StartFailed({ path: cell.path, reason })))
          }
        })
      })
    )
  }

  childDown(child: Node, _down?: Down): void {
    child.retire()
    if (this.children.get(child.id) === child) {
      this.children.delete(child.id)
    }
    const { registry } = this.life.cell.kernel
    const key = (child as Cell).key?.name
    if (key !== undefined && registry.get(key) === (child as Cell)) {
      registry.delete(key)
    }
  }

  /** Stops all children, youngest first. */
  readonly stopAll: Effect.Effect<void> = Effect.suspend(() =>
    Effect.forEach(
      [...this.children.values()].reverse(),
      (cell) =>
        Effect.callback<void>((resume) => {
          cell.stop(true, () => {
            this.childDown(cell)
            resume(Effect.void)
          })
        }),
      { discard: true }
    )
  )
}

/**
 * What supervisors and the things they supervise know of each other.
 */
import type { AnySpec } from "../ChildSpec.ts"
import type { Inspection } from "../Inspection.ts"
import type { Kernel } from "./Kernel.ts"

/** Why a child is down: it ended normally, or it crashed (a failed start is a crash of the factory). */
export type Down =
  | { readonly _tag: "Normal" }
  | { readonly _tag: "Crash"; readonly reason: string; readonly during: "start" | "run" }

/** The last failure of a child, for inspection. */
export interface LastFailure {
  /** Wall-clock milliseconds. */
  readonly atMs: number
  readonly reason: string
}

/** What stands above a child. */
export interface Owner {
  /** The child's life ended without having been asked to. */
  childDown(child: Node, down: Down): void
  /** A message arrived for a child that has no life (dynamic children start on demand). */
  messageForIdle?(child: Node): void
}

/** A child of a supervisor: an actor's cell, a supervisor, or a dynamic supervisor. */
export interface Node {
  readonly kind: "actor" | "supervisor" | "dynamic"
  readonly id: string
  readonly path: string
  /** Begins a life; `started` is called exactly once. */
  begin(started: (failure: Down | undefined) => void): void
  /** Ends the life in order; `done` is called exactly once, also when there was none. */
  stop(forGood: boolean, done: () => void): void
  /** Closes the addresses of a child that is down. */
  retire(): void
  /** Describes itself; `view` is what its supervisor adds, `childLimit` bounds the children shown per node. */
  inspect(view: ChildView, childLimit: number): Inspection
}

/** How a supervisor sees one of its children, shown beside what the child says about itself. */
export interface ChildView {
  readonly restarts: number
  readonly degraded: boolean
  readonly lastFailure: LastFailure | undefined
}

/** Builds what a specification describes, without starting anything. */
export type MakeNode = (kernel: Kernel, parentPath: string, spec: AnySpec, owner: Owner) => Node

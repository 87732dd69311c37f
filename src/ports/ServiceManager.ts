/** Whoever started this program and waits to hear of it: systemd, a simulation, or nobody. No method can fail. */
import type { Effect } from "effect"
import { Context } from "effect"

export class ServiceManager extends Context.Service<
  ServiceManager,
  {
    /** The program does its work. */
    readonly ready: Effect.Effect<void>
    /** Every watched loop was heard of in time. */
    readonly alive: Effect.Effect<void>
    /** The program stops now. */
    readonly stopping: Effect.Effect<void>
  }
>()("postern/ports/ServiceManager") {}

/**
 * Who an agent is, and whom it believes: what the trust root and the device's acceptance say. A plain cell, written by the
 * trust keeper alone.
 */
import { Context, type Effect } from "effect"
import type { DeviceId, Name, ServerId } from "../schemas/Ids.ts"

export interface AgentStanding {
  readonly name: Name
  readonly device: DeviceId
  readonly server: ServerId
  /** Signing keys of broker services, base64. */
  readonly services: ReadonlySet<string>
}

export class AgentTrust extends Context.Service<
  AgentTrust,
  {
    /** Null as long as the device is not accepted, or holds no root in force that names broker services. */
    readonly current: () => AgentStanding | null
    readonly set: (standing: AgentStanding | null) => void
    /** Ends when another standing is set after this was called. Take it first and look after, so that no change is missed. */
    readonly changed: () => Effect.Effect<void>
  }
>()("postern/ports/AgentTrust") {}

/** Who an agent is, and whom it believes: what the trust root and the device's acceptance say, as plain cells. */
import { Context } from "effect"
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
    /** Null before the device has a name and a root that names broker services. */
    readonly current: () => AgentStanding | null
  }
>()("postern/ports/AgentTrust") {}

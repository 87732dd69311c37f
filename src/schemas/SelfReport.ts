/** What a running client tells of itself on its control socket, for `postern doctor` on the same machine. */
import { Schema } from "effect"
import { TimestampMs } from "./Ids.ts"
import { JailVerdict } from "./protocols/JailGuard.ts"
import { AgentStandingWord } from "./protocols/SmartAgent.ts"
import { TrustPhase } from "./protocols/TrustKeeper.ts"
import { TunnelState } from "./TunnelState.ts"

export const SelfReport = Schema.Struct({
  phase: TrustPhase,
  /** To be compared by a person; null where none is to be. */
  claim_code: Schema.NullOr(Schema.String),
  /** What the trust keeper waits for. */
  trust_detail: Schema.String,
  /** Why it takes no orders; null where it does. */
  blocked: Schema.NullOr(Schema.String),
  /** How the last turn of the main loop went. */
  detail: Schema.String,
  /** When a poll was answered last; null before the first. */
  last_poll_at_ms: Schema.NullOr(TimestampMs),
  jail: JailVerdict,
  tunnel: TunnelState,
  /** Null where it keeps no agent, or none that answers. */
  agent: Schema.NullOr(AgentStandingWord)
})
export type SelfReport = typeof SelfReport.Type

/** A running client's word of itself, for `postern doctor`: what its own actors know, and nothing secret. */
import { Effect } from "effect"
import {
  JailGuardKey,
  MainLoopKey,
  SmartAgentKey,
  TrustKeeperKey,
  TunnelKeeperKey
} from "../../actors/ClientKeys.ts"
import type { ActorSystem } from "../../kernel/index.ts"
import type { SelfReport } from "../../schemas/SelfReport.ts"

/** Null where one of the actors does not answer just now. */
export const selfReport = (system: ActorSystem, hasAgent: boolean): Effect.Effect<SelfReport | null> =>
  Effect.all({
    status: system.ref(MainLoopKey).ask("Status"),
    trust: system.ref(TrustKeeperKey).ask("View"),
    jail: system.ref(JailGuardKey).ask("Verdict"),
    tunnel: system.ref(TunnelKeeperKey).ask("Status"),
    // An optional part: without its word the others still count.
    agent: hasAgent
      ? Effect.orElseSucceed(system.ref(SmartAgentKey).ask("Standing"), () => null)
      : Effect.succeed(null)
  }).pipe(
    Effect.map(
      ({ agent, jail, status, trust, tunnel }): SelfReport => ({
        phase: trust.phase,
        claim_code: trust.claimCode,
        trust_detail: trust.detail,
        blocked: status.blocked,
        detail: status.detail,
        last_poll_at_ms: status.lastPollAtMs,
        jail,
        tunnel: tunnel.state,
        agent
      })
    ),
    Effect.orElseSucceed(() => null)
  )

/** A running client's word of itself, for `postern doctor`: what its own actors know, and nothing secret. */
import { Effect } from "effect"
import { JailGuardKey, MainLoopKey, TrustKeeperKey, TunnelKeeperKey } from "../../actors/ClientKeys.ts"
import type { ActorSystem } from "../../kernel/index.ts"
import type { SelfReport } from "../../schemas/SelfReport.ts"

/** Null where one of the actors does not answer just now. */
export const selfReport = (system: ActorSystem): Effect.Effect<SelfReport | null> =>
  Effect.all({
    status: system.ref(MainLoopKey).ask("Status"),
    trust: system.ref(TrustKeeperKey).ask("View"),
    jail: system.ref(JailGuardKey).ask("Verdict"),
    tunnel: system.ref(TunnelKeeperKey).ask("Status")
  }).pipe(
    Effect.map(
      ({ jail, status, trust, tunnel }): SelfReport => ({
        phase: trust.phase,
        claim_code: trust.claimCode,
        trust_detail: trust.detail,
        blocked: status.blocked,
        detail: status.detail,
        last_poll_at_ms: status.lastPollAtMs,
        jail,
        tunnel: tunnel.state
      })
    ),
    Effect.orElseSucceed(() => null)
  )

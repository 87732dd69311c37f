/** An agent that is open, as the library and `postern agent` have it. */
import { Effect, Schedule, Schema, type Scope } from "effect"
import { connectAgent } from "../../adapters/agent/RemoteDesk.ts"
import { requireSocketPlace } from "../../adapters/agent/SocketPlace.ts"
import type { AgentDesk } from "../../ports/AgentDesk.ts"
import type { AgentTrouble, LocalReport } from "../../schemas/AgentLocal.ts"
import type { Handshake } from "../../schemas/Agents.ts"
import type { ClientConfig } from "../../schemas/ClientConfig.ts"
import type { Invitation } from "../../schemas/Enrolment.ts"

/** What an agent of one's own is opened with. */
export interface OwnAgentSettings {
  readonly config: ClientConfig
  readonly invitation: Invitation | null
  readonly appearance: { readonly visible: boolean; readonly edgeDevices: Handshake["edge_devices"] }
}

/** An agent could not be opened, or has come to its end. */
export class AgentUnavailable extends Schema.TaggedError<AgentUnavailable>()("AgentUnavailable", {
  /**
   * - `misconfigured`: settings or the state folder
   * - `in_use`: a program without an agent holds the folder
   * - `rejected`, `revoked`: by an operator
   * - `failed`: the agent gave up
   */
  code: Schema.Literals(["misconfigured", "in_use", "rejected", "revoked", "failed"]),
  reason: Schema.String
}) {
  override get message(): string {
    return this.reason
  }
}

export interface OpenedAgent {
  readonly desk: AgentDesk
  /** Whether it runs in this process. */
  readonly isOwn: boolean
  /** Fails when the agent has ended by itself. */
  readonly ended: Effect.Effect<never, AgentUnavailable | AgentTrouble>
}

/** Where a program runs an agent on the folder, its desk. */
export const attached = (
  stateFolder: string
): Effect.Effect<OpenedAgent | undefined, AgentTrouble | AgentUnavailable, Scope.Scope> =>
  requireSocketPlace(stateFolder).pipe(
    Effect.mapError(({ message }) => new AgentUnavailable({ code: "misconfigured", reason: message })),
    Effect.andThen(connectAgent(stateFolder)),
    Effect.map((desk): OpenedAgent | undefined => ({ desk, isOwn: false, ended: desk.ended })),
    Effect.catchIf(
      ({ code }) => code === "not_running" || code === "gone",
      () => Effect.undefined
    )
  )

/** Between two looks at how an agent stands. */
const lookMs = 200
/** A decision that was kept may have been taken back since: the server is asked first, where it is reached. */
const mendingMs = 5_000

/** Who is started again, or waits for a slow disk, answers a later look. */
const lookAgain = Schedule.max([Schedule.spaced("1 second"), Schedule.recurs(60)])

/** How an agent stands, for whoever looks again and again: that one look failed says nothing yet. */
export const steadyReport = ({ report }: AgentDesk): Effect.Effect<LocalReport, AgentTrouble> =>
  Effect.retry(report, {
    while: ({ code }) => code === "failed" || code === "timed_out",
    schedule: lookAgain
  })

/** Waits until operators have accepted the agent; tells each report on the way. */
export const untilAccepted = Effect.fnUntraced(function* (
  { desk, ended }: OpenedAgent,
  told: (report: LocalReport) => Effect.Effect<void>
) {
  const wait = Effect.gen(function* () {
    for (let turnedAwayMs = 0; ; ) {
      const report = yield* steadyReport(desk)
      yield* told(report)
      const { phase } = report.enrolment
      if (phase === "accepted") return
      turnedAwayMs = phase === "not_enrolled" ? 0 : turnedAwayMs + lookMs
      if (phase !== "not_enrolled" && turnedAwayMs > mendingMs)
        return yield* new AgentUnavailable({
          code: phase,
          reason: `an operator ${phase} this device: ${report.enrolment.detail || "ask one to accept it"}`
        })
      yield* Effect.sleep(lookMs)
    }
  })
  return yield* Effect.raceFirst(wait, ended)
})

/**
 * What is weaker on this device than it should be, gathered from the parts that know it. Each is asked briefly: a list
 * without what a hanging part knows is better than none.
 */
import { Effect } from "effect"
import type { ActorContext } from "../kernel/index.ts"
import type { Condition, ConditionCode } from "../schemas/Conditions.ts"
import { brokenLayers } from "../schemas/Connectivity.ts"
import type { HistorianStatus } from "../schemas/protocols/Historian.ts"
import type { JailVerdict } from "../schemas/protocols/JailGuard.ts"
import type { AgentStandingWord } from "../schemas/protocols/SmartAgent.ts"
import type { LoopHealth } from "../schemas/protocols/Watchdog.ts"
import {
  ConnectivityKey,
  HealthLoopKey,
  HistorianKey,
  JailGuardKey,
  SmartAgentKey,
  TunnelKeeperKey,
  WatchdogKey
} from "./ClientKeys.ts"
import { plainText } from "./PlainText.ts"

/** Enough for any part that is not hanging. */
const askTimeoutMs = 1_000

/** A condition with whatever text, made fit to be sent. */
export const condition = (code: ConditionCode, detail = ""): Condition => ({
  code,
  detail: plainText(detail, 200)
})

const jailConditions = ({ problem, report }: JailVerdict): ReadonlyArray<Condition> => [
  ...(problem === null ? [] : [condition("no_jail", problem)]),
  ...(report?.isolation === "same-uid" ? [condition("same_uid")] : []),
  ...(report?.notes ?? []).map((note) => condition("jail_weakened", note))
]

const loopConditions = (loops: ReadonlyArray<LoopHealth>): ReadonlyArray<Condition> =>
  loops
    .filter(({ overdue }) => overdue)
    .map(({ loop, silentMs }) => condition("loop_silent", `${loop} for ${Math.round(silentMs / 1000)} s`))

const historyConditions = ({ leapt, setAside, trouble }: HistorianStatus): ReadonlyArray<Condition> => [
  ...(trouble === null ? [] : [condition("history_unavailable", trouble)]),
  ...(setAside === null ? [] : [condition("history_set_aside", setAside)]),
  ...(leapt === null ? [] : [condition("clock_leapt", leapt)])
]

/** A session is lost now and then; one that is not found again is worth a word. */
const agentPatienceMs = 300_000

const agentConditions = ({
  detail,
  ids_full,
  inbox_full,
  lacking_ms,
  state
}: AgentStandingWord): ReadonlyArray<Condition> => [
  ...(lacking_ms < agentPatienceMs
    ? []
    : [condition("agent_offline", detail === "" ? state : `${state}: ${detail}`)]),
  ...(inbox_full ? [condition("agent_inbox_full")] : []),
  ...(ids_full ? [condition("agent_ids_full")] : [])
]

/**
 * Asks every part. `standing` is what the start found, which holds for the whole life; `hasAgent`, whether this program
 * keeps an agent.
 */
export const gatherConditions = Effect.fnUntraced(function* (
  context: Pick<ActorContext<never>, "ref">,
  standing: ReadonlyArray<Condition>,
  hasAgent: boolean
) {
  const briefly = { timeoutMs: askTimeoutMs }
  const none: ReadonlyArray<Condition> = []
  const found = yield* Effect.all(
    [
      Effect.map(context.ref(ConnectivityKey).ask("Status", undefined, briefly), ({ detail, layer }) =>
        layer === "ok" ? none : [condition(layer, detail)]
      ),
      Effect.map(context.ref(JailGuardKey).ask("Verdict", undefined, briefly), jailConditions),
      Effect.map(context.ref(WatchdogKey).ask("Report", undefined, briefly), loopConditions),
      Effect.map(context.ref(HistorianKey).ask("Status", undefined, briefly), historyConditions),
      Effect.map(context.ref(TunnelKeeperKey).ask("Status", undefined, briefly), ({ state }) =>
        state.problem === null ? none : [condition("tor_unavailable", state.reason ?? state.summary)]
      ),
      context.ref(HealthLoopKey).ask("Machine", undefined, briefly),
      hasAgent
        ? Effect.map(context.ref(SmartAgentKey).ask("Standing", undefined, briefly), agentConditions)
        : Effect.succeed(none)
    ].map((part) => Effect.orElseSucceed(part, () => none)),
    { concurrency: "unbounded" }
  )
  return [...standing, ...found.flat()]
})

/**
 * The codes that a poll carries, each once. A layer below the server is no news to a server that hears of it: by then
 * it is good again.
 */
export const codesOf = (conditions: ReadonlyArray<Condition>): ReadonlyArray<ConditionCode> => {
  const passed: ReadonlyArray<string> = brokenLayers.filter((layer) => layer !== "no_reference_host")
  return [...new Set(conditions.map(({ code }) => code))].filter((code) => !passed.includes(code))
}

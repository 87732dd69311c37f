/**
 * Following a rollout: looks at it again and again, judges it whenever something moved, and shows how far it is.
 *
 * @module
 */
import { Clock, Effect } from "effect"
import type { ServerProblem } from "../../adapters/operator/ManagementClient.ts"
import { isEnded, type RolloutDetail, type RolloutId, type RolloutView } from "../../schemas/Rollout.ts"
import { showAlarms } from "./Alarms.ts"
import { statusLine } from "./Progress.ts"
import { currentRollout, type JudgedRollout, judgeRollout } from "./RolloutVerification.ts"
import { countsText, stateText } from "./RolloutViews.ts"
import { outJson, Screen, say } from "./Screen.ts"
import { Json } from "./Settings.ts"

const lookEveryMs = 1_000
/** For so long an unreached server is asked again. */
const patienceMs = 10 * 60_000
/** For so long devices may still tell how they ended after an abort. */
const stragglersMs = 60_000

const barWidth = 24

/** `phase 2 of 3 [######......] 5 succeeded, 1 open`. */
export const rolloutBar = (view: RolloutView): string => {
  const { counts } = view
  const total = Object.values(counts).reduce((sum, count) => sum + count, 0)
  const done = total - counts.open - counts.waiting - counts.absent
  const filled = total === 0 ? 0 : Math.floor((barWidth * done) / total)
  return `${stateText(view)} [${"#".repeat(filled)}${".".repeat(barWidth - filled)}] ${countsText(counts)}`
}

/** Tells of a change: as an event, or as a line where no bar is drawn. */
const makeTelling = Effect.gen(function* () {
  const screen = yield* Screen
  const draw = yield* statusLine
  const isJson = yield* Json
  let last = ""
  return (view: RolloutView) =>
    Effect.suspend(() => {
      const text = `${stateText(view)}: ${countsText(view.counts)}`
      if (text === last) return Effect.void
      last = text
      if (isJson) return Effect.provideService(outJson({ event: "state", ...view }), Screen, screen)
      if (screen.errIsTerminal) return draw(rolloutBar(view))
      return Effect.provideService(say(`postern: ${text}`), Screen, screen)
    })
})

const patiently = <A, R>(request: Effect.Effect<A, ServerProblem, R>): Effect.Effect<A, ServerProblem, R> =>
  Effect.gen(function* () {
    const startedMs = yield* Clock.currentTimeMillis
    for (;;) {
      const result = yield* Effect.result(request)
      if (result._tag === "Success") return result.success
      const { kind } = result.failure
      const waitedMs = (yield* Clock.currentTimeMillis) - startedMs
      const isPassing = kind === "unreachable" || kind === "unavailable"
      if (!isPassing || waitedMs > patienceMs) return yield* result.failure
      yield* Effect.sleep(lookEveryMs)
    }
  })

/** What one look is told apart from the next by. */
const signature = ({ devices, rollout }: RolloutDetail): string =>
  JSON.stringify([rollout.version, rollout.state, devices.map(({ outcome, state }) => [outcome, state])])

/** Follows until the rollout has ended or is paused; gives it with every device's chain judged. */
export const followRollout = (id: RolloutId) =>
  Effect.scoped(
    Effect.gen(function* () {
      const tell = yield* makeTelling
      const warned = new Set<string>()
      let seen = ""
      let endedMs: number | undefined
      const warn = ({ alarms }: JudgedRollout) => {
        const news = alarms.filter((alarm) => !warned.has(alarm))
        for (const alarm of news) warned.add(alarm)
        return showAlarms(news)
      }
      for (;;) {
        const detail = yield* patiently(currentRollout(id))
        const { rollout } = detail
        yield* tell(rollout)
        if (signature(detail) !== seen) {
          seen = signature(detail)
          yield* warn(yield* judgeRollout(detail, id, false))
        }
        const nowMs = yield* Clock.currentTimeMillis
        if (isEnded(rollout.state)) endedMs ??= nowMs
        const isLate = endedMs !== undefined && nowMs - endedMs > stragglersMs
        const isOver = isEnded(rollout.state) && (rollout.counts.open === 0 || isLate)
        if (isOver || rollout.state === "paused") return yield* judgeRollout(detail, id, true)
        yield* Effect.sleep(lookEveryMs)
      }
    })
  )

/** The jail guard: checks the jail at start and from time to time, so that the others can ask without waiting. */
import { Effect, Exit } from "effect"
import { Behaviour } from "../kernel/index.ts"
import { Jail } from "../ports/Jail.ts"
import { JailGuardProtocol, type JailVerdict } from "../schemas/protocols/JailGuard.ts"
import { makeAlarm } from "./Alarm.ts"
import { MainLoopKey } from "./ClientKeys.ts"

/** A good jail is looked at again after this. */
const goodMs = 600_000
/** A missing one sooner, so that installing bubblewrap is noticed. */
const badMs = 30_000

const check = Effect.gen(function* () {
  const jail = yield* Jail
  return yield* jail.check.pipe(
    Effect.map((report): JailVerdict => ({ report, problem: null })),
    Effect.catch((error) => Effect.succeed<JailVerdict>({ report: null, problem: error.message }))
  )
})

/** The jail guard's behaviour. */
export const jailGuard = Behaviour.make(JailGuardProtocol, (context) =>
  Effect.gen(function* () {
    let verdict: JailVerdict = { report: null, problem: null }
    let checking = false
    const mainLoop = context.ref(MainLoopKey)
    const alarm = yield* makeAlarm(context.self.tell("Due"))
    const begin = Effect.suspend(() => {
      if (checking) return Effect.void
      checking = true
      return context.startTask(check, (exit) => [
        "Checked",
        Exit.isSuccess(exit) ? exit.value : { report: null, problem: "the check of the jail broke off" }
      ])
    })
    yield* alarm.ringIn(0)
    return context.handlers({
      Verdict: () => Effect.sync(() => verdict),
      Recheck: () => begin,
      Due: () => begin,
      Checked: Effect.fnUntraced(function* ({ payload }) {
        checking = false
        const changed =
          payload.problem !== verdict.problem || (payload.report === null) !== (verdict.report === null)
        verdict = payload
        if (changed && payload.problem !== null)
          yield* Effect.logError(`there is no safe jail: ${payload.problem}`)
        if (changed && payload.report !== null) {
          yield* Effect.logInfo(`the jail is safe: ${payload.report.engine} ${payload.report.version}`).pipe(
            Effect.annotateLogs({
              isolation: payload.report.isolation,
              notes: payload.report.notes.join(" ")
            })
          )
        }
        if (changed) yield* Effect.ignore(mainLoop.tell("Nudge"))
        yield* alarm.ringIn(payload.report === null ? badMs : goodMs)
      })
    })
  })
)

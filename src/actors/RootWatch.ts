/** The root watch: see its protocol. It speaks when a warning becomes graver, and of the same one once a day. */
import { Clock, Effect } from "effect"
import { Behaviour } from "../kernel/index.ts"
import { FleetTrust } from "../ports/FleetTrust.ts"
import { RootWatchProtocol } from "../schemas/protocols/RootWatch.ts"
import { expiryWarning } from "../schemas/RootExpiry.ts"
import { makeAlarm, monotonicMs } from "./Alarm.ts"

/** The registrar has read the stored roots by then. */
const firstMs = 5_000
const everyMs = 6 * 3_600_000
const repeatMs = 4 * everyMs

export const rootWatch = Behaviour.make(RootWatchProtocol, (context) =>
  Effect.gen(function* () {
    const trust = yield* FleetTrust
    let said = { text: "", at: 0 }
    const alarm = yield* makeAlarm(context.self.tell("Due"))
    yield* alarm.ringIn(firstMs)
    return context.handlers({
      Due: Effect.fnUntraced(function* () {
        const root = trust.current()?.root
        const nowAt = yield* monotonicMs
        const warning = root && expiryWarning(root, yield* Clock.currentTimeMillis)
        const isNews = warning !== undefined && (warning.text !== said.text || nowAt - said.at >= repeatMs)
        if (isNews) {
          said = { text: warning.text, at: nowAt }
          yield* warning.level === "expired" ? Effect.logError(warning.text) : Effect.logWarning(warning.text)
        }
        yield* alarm.ringIn(everyMs)
      })
    })
  })
)

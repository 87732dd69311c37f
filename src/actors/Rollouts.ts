/**
 * The keeper of rollouts: see its protocol. What it knows is which ones are open; how one stands is its own actor's
 * business.
 */
import { Clock, Effect, Result } from "effect"
import { verifyRollout } from "../crypto/Trust.ts"
import { Behaviour } from "../kernel/index.ts"
import { CryptoEngine } from "../ports/CryptoEngine.ts"
import { FleetTrust } from "../ports/FleetTrust.ts"
import { RolloutStore } from "../ports/RolloutStore.ts"
import type { DsseEnvelope } from "../schemas/Dsse.ts"
import { Limits } from "../schemas/Limits.ts"
import { Conflict, Refused } from "../schemas/ManagementErrors.ts"
import { RolloutsProtocol } from "../schemas/protocols/Rollouts.ts"
import type { RolloutId } from "../schemas/Rollout.ts"
import { makeAlarm } from "./Alarm.ts"
import { refusalOf, requireGoodRoot } from "./OperatorWord.ts"
import { RolloutKey } from "./ServerKeys.ts"
import { orUnavailable } from "./StoreTrouble.ts"

/** Every open rollout looks at itself this often, whatever words got lost. */
const everyMs = 15_000

const conflictTexts = {
  id_taken: ["id_taken", "the rollout's id, or that of one of its orders, is in use"],
  in_rollout: ["in_rollout", "a device of the group is in another rollout that has not ended"],
  too_many: ["too_many_rollouts", `${Limits.openRollouts} rollouts are open: end one first`],
  unknown_device: ["unknown_device", "a device of the plan is not an accepted one here"]
} as const

/** Verifies a plan and keeps it. */
const makeOpening = Effect.gen(function* () {
  const store = yield* RolloutStore
  const engine = yield* CryptoEngine
  const trust = yield* FleetTrust
  return Effect.fnUntraced(function* (envelope: DsseEnvelope, actor: string) {
    const root = trust.current()
    if (root === null)
      return yield* new Conflict({ code: "no_root", message: "the server has no trust root yet" })
    yield* requireGoodRoot(root)
    const verified = verifyRollout(engine, root.root, envelope)
    if (Result.isFailure(verified)) return yield* refusalOf(verified.failure, envelope, root)
    const { digest, document: plan } = verified.success
    const nowMs = yield* Clock.currentTimeMillis
    if (plan.expires_at_ms <= nowMs) return yield* new Refused({ message: "the rollout has expired" })
    const outcome = yield* store.addRollout(plan, envelope, digest, actor, nowMs)
    if (outcome === "added" || outcome === "same") return plan.id
    const [code, message] = conflictTexts[outcome]
    return yield* new Conflict({ code, message })
  })
})

export const rollouts = Behaviour.make(RolloutsProtocol, (context) =>
  Effect.gen(function* () {
    const store = yield* RolloutStore
    const open = yield* makeOpening
    const alarm = yield* makeAlarm(context.self.tell("Due"))
    /** Whether any is open; null until the first look. */
    let isAnyOpen: boolean | null = null

    const poke = (id: RolloutId) =>
      Effect.catch(context.refOf(RolloutKey, id).tell("Look"), (error) => Effect.logDebug(error.message))
    yield* alarm.ringIn(0)

    return context.handlers({
      Open: ({ payload }) =>
        orUnavailable(open(payload.envelope, payload.actor)).pipe(
          Effect.tap((id) => {
            isAnyOpen = true
            return poke(id)
          })
        ),
      Touched: ({ payload }) =>
        isAnyOpen === false
          ? Effect.void
          : Effect.flatMap(store.rolloutsOf(payload.orders), (ids) =>
              Effect.forEach(ids, poke, { discard: true })
            ).pipe(Effect.catch((error) => Effect.logDebug(error.reason))),
      Due: Effect.fnUntraced(
        function* () {
          const rows = yield* store.rollouts(true, Limits.openRollouts)
          isAnyOpen = rows.length > 0
          for (const { plan } of rows) yield* poke(plan.id)
        },
        Effect.catch((error) => Effect.logWarning(`the rollouts are not looked at: ${error.reason}`)),
        Effect.ensuring(alarm.ringIn(everyMs))
      )
    })
  })
)

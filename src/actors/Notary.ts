/**
 * The notary: continues the chain of receipts, one at a time. Two lanes and the main loop end orders; numbers and
 * predecessors can only be right if one actor hands them out.
 */
import { Effect } from "effect"
import { Behaviour } from "../kernel/index.ts"
import { Identity } from "../ports/Identity.ts"
import { Ledger, type LedgerError } from "../ports/Ledger.ts"
import type { DeviceId } from "../schemas/Ids.ts"
import { type Ending, NotaryProtocol, NotConcluded } from "../schemas/protocols/Notary.ts"
import type { Receipt } from "../schemas/Receipt.ts"
import { software } from "../schemas/Version.ts"
import { isFinal } from "../schemas/WorkOrder.ts"
import { HistorianKey, OutboxKey } from "./ClientKeys.ts"

const concludedBefore = Effect.fnUntraced(function* (ending: Ending) {
  const ledger = yield* Ledger
  if (ending.accepted === null) return yield* ledger.concluded(ending.key)
  const row = yield* ledger.find(ending.accepted)
  return row !== null && isFinal(row.state)
})

/** Signs the next receipt and stores it with the order's end; false when that end stands already. */
const conclude = Effect.fnUntraced(function* (ending: Ending) {
  const ledger = yield* Ledger
  const identity = yield* Identity
  if (yield* concludedBefore(ending)) return false
  const head = yield* ledger.chainHead
  const receipt: Receipt = {
    ...ending.draft,
    type: "postern/receipt/v1",
    number: head.number + 1,
    previous: head.digest,
    device: identity.id as DeviceId,
    incarnation: ledger.incarnation,
    software
  }
  const signed = yield* identity.sign("receipt", receipt)
  yield* ledger.conclude({
    order: ending.accepted,
    orderDigest: ending.key,
    state: receipt.state,
    receipt: signed.envelope,
    number: receipt.number,
    receiptDigest: signed.digest,
    previous: receipt.previous,
    artifacts: ending.artifacts
  })
  yield* Effect.logInfo(`order ${receipt.order ?? "(none)"} ${receipt.state}`).pipe(
    Effect.annotateLogs({
      order: receipt.order,
      state: receipt.state,
      reason: receipt.reason,
      receipt: receipt.number
    })
  )
  return true
})

const notConcluded = (error: LedgerError) =>
  new NotConcluded({ reason: `${error.operation}: ${error.reason}` })

/** The notary's behaviour. It keeps nothing: the chain's head stands in the ledger. */
export const notary = Behaviour.make(NotaryProtocol, (context) =>
  Effect.gen(function* () {
    const outbox = context.ref(OutboxKey)
    const tellHistory = ({ accepted, draft }: Ending) =>
      Effect.ignore(
        context.ref(HistorianKey).tell("Happened", {
          kind: accepted === null ? "refusal" : "order",
          subject: draft.order ?? "",
          detail: draft.reason === null ? draft.state : `${draft.state}: ${draft.reason}`
        })
      )
    const services = yield* Effect.context<Ledger | Identity>()
    return context.handlers({
      Conclude: ({ payload }) =>
        conclude(payload).pipe(
          Effect.mapError(notConcluded),
          Effect.tap((isNew) => (isNew ? tellHistory(payload) : Effect.void)),
          Effect.tap(() => Effect.ignore(outbox.tell("Wake"))),
          Effect.provideContext(services)
        )
    })
  })
)

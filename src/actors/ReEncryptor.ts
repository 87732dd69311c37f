/**
 * The re-encryptor of one agent's messages: see its protocol. One actor per sender, so that messages of one sender keep
 * their order, and a sender that floods waits for itself alone.
 *
 * Nothing is acknowledged before it is safe: id and deliveries are one transaction, and what it stores is sealed already.
 */
import { Clock, Effect, Result, Schedule } from "effect"
import type { RpcGroup } from "effect/rpc"
import type { RefusedMessage } from "../crypto/Messages.ts"
import { type Accepted, identityOf, recipientsOf } from "../crypto/Relay.ts"
import { type ActorRef, Behaviour } from "../kernel/index.ts"
import { AgentBook } from "../ports/AgentBook.ts"
import { MessagePolicy } from "../ports/MessagePolicy.ts"
import { type AgentRow, type DeliveryRow, MessageStore, type NewDelivery } from "../ports/MessageStore.ts"
import { RelayCrypto } from "../ports/RelayCrypto.ts"
import type { DeviceId } from "../schemas/Ids.ts"
import type { MessageRefusal, SecureLevel } from "../schemas/Message.ts"
import type { BrokerKeeperProtocol } from "../schemas/protocols/BrokerKeeper.ts"
import { ReEncryptorProtocol, RelayUnavailable } from "../schemas/protocols/ReEncryptor.ts"
import { type AgentName, brokerServices } from "../schemas/Topics.ts"
import { BrokerKeeperKey } from "./ServerKeys.ts"

/** When the keeper is told again, and how often: all that a sender has under way must be told of in its time. */
const tellAgainMs = 100
const tellTimes = 50

const levelOf = (accepted: Accepted): SecureLevel =>
  accepted._tag === "Closed" ? "end_to_end" : accepted.message.level

/** Sorts the recipients a message names into those it goes to, and why not for the rest. */
const makeRecipients = Effect.gen(function* () {
  const book = yield* AgentBook
  const policy = yield* MessagePolicy
  return (from: AgentName, accepted: Accepted) => {
    const refused: Array<MessageRefusal> = []
    const recipients = recipientsOf(accepted).flatMap((name) => {
      const known = book.get(name)
      if (known === undefined || name === brokerServices) {
        refused.push("unknown_recipient")
        return []
      }
      if (!policy.permits(from, name, levelOf(accepted))) {
        refused.push("not_permitted")
        return []
      }
      return [{ name, agreementKey: known.agreement.key, device: known.device }]
    })
    return { recipients, refused }
  }
})

/**
 * Has deliveries brought. Where the keeper has no room they are told of again, and the sender's next message waits for that:
 * it must not overtake them. `due` gives those that are still for the same agents.
 */
const makeDispatch =
  (keeper: ActorRef<RpcGroup.Rpcs<typeof BrokerKeeperProtocol>>) =>
  (due: () => ReadonlyArray<DeliveryRow>): Effect.Effect<void> =>
    Effect.suspend(() => {
      const deliveries = due()
      return deliveries.length === 0 ? Effect.void : keeper.tell("Dispatch", { deliveries })
    }).pipe(
      Effect.retry({
        while: ({ _tag }) => _tag === "MailboxFull",
        schedule: Schedule.spaced(tellAgainMs),
        times: tellTimes
      }),
      Effect.catch((error) =>
        Effect.logWarning(`what is stored waits for the next look through the store: ${error.message}`)
      )
    )

/** Counts what is refused of a sender. */
const makeRefusals = Effect.fnUntraced(function* (agent: AgentName) {
  const store = yield* MessageStore
  return {
    refuse: (code: MessageRefusal, nowMs: number, refusal?: RefusedMessage) =>
      Effect.logDebug(`a message of ${agent} is refused: ${refusal?.message ?? code}`).pipe(
        Effect.andThen(store.refused(agent, code, nowMs))
      ),
    /** For recipients that get nothing of a message which is stored: whether they can be counted or not, others get theirs. */
    leaveOut: (codes: ReadonlyArray<MessageRefusal>, nowMs: number) =>
      Effect.forEach(
        new Set(codes),
        (code) => {
          const { length } = codes.filter((each) => each === code)
          return Effect.andThen(
            Effect.logDebug(`recipients of a message of ${agent} are left out: ${length} ${code}`),
            store.refused(agent, code, nowMs, length)
          )
        },
        { discard: true }
      ).pipe(
        Effect.catch((error) => Effect.logWarning(`who is left out is not counted yet: ${error.reason}`))
      )
  }
})

/** The behaviour for one agent. */
export const reEncryptor = (agent: AgentName) =>
  Behaviour.make(ReEncryptorProtocol, (context) =>
    Effect.gen(function* () {
      const book = yield* AgentBook
      const crypto = yield* RelayCrypto
      const store = yield* MessageStore
      const sortRecipients = yield* makeRecipients
      const dispatch = makeDispatch(context.ref(BrokerKeeperKey))

      const { leaveOut, refuse } = yield* makeRefusals(agent)

      const unavailable = (what: string, reason: string) =>
        Effect.andThen(
          Effect.logError(`a message of ${agent} ${what}`),
          Effect.fail(new RelayUnavailable({ reason }))
        )

      /**
       * Stores what follows from a good message, and has it delivered. Operators may have decided while it was judged and
       * sealed: who was cut off meanwhile neither sends nor gets, and whoever has the name by now is another.
       */
      const relay = Effect.fnUntraced(function* (accepted: Accepted, known: AgentRow, judgedAtMs: number) {
        const { recipients, refused } = sortRecipients(agent, accepted)
        const sealed = yield* crypto.outgoing(accepted, recipients, judgedAtMs)
        const nowMs = yield* Clock.currentTimeMillis
        const { expires_at_ms, id } = identityOf(accepted)
        // Its id may be forgotten from then on.
        if (expires_at_ms <= nowMs) return yield* refuse("expired", nowMs)
        const isStill = (name: AgentName, device: DeviceId | undefined) => book.get(name)?.device === device
        const devices = new Map<AgentName, DeviceId>(recipients.map(({ device, name }) => [name, device]))
        const isThere = ({ to }: NewDelivery): boolean => isStill(to, devices.get(to))
        // Nothing comes between this look and the store's turn: what is removed with an agent is removed behind it.
        if (!isStill(agent, known.device)) return yield* refuse("unknown_sender", nowMs)
        const outgoing = sealed.filter(isThere)
        const { deliveries, outcome } = yield* store.accept(known.device, id, expires_at_ms, outgoing, nowMs)
        if (outcome === "replayed") return yield* refuse("replayed", nowMs)
        // To forget one of its ids early would let that be replayed.
        if (outcome === "full") return yield* refuse("overloaded", nowMs)
        for (let left = outgoing.length; left < sealed.length; left++) refused.push("unknown_recipient")
        for (let left = deliveries.length; left < outgoing.length; left++) refused.push("overloaded")
        yield* leaveOut(refused, nowMs)
        yield* dispatch(() => deliveries.filter(isThere))
      })

      return context.handlers({
        Submit: Effect.fnUntraced(
          function* ({ payload: { inbox, wire } }) {
            const nowMs = yield* Clock.currentTimeMillis
            const known = book.get(agent)
            if (known === undefined) return yield* refuse("unknown_sender", nowMs)
            const arrival = { inbox, wire, from: agent, senderKey: known.signingKey, nowMs }
            const judged = yield* crypto.judge(arrival)
            if (Result.isFailure(judged)) return yield* refuse(judged.failure.code, nowMs, judged.failure)
            yield* relay(judged.success, known, nowMs)
          },
          Effect.catchTags({
            MessageStoreError: (error) => unavailable(`was not stored: ${error.reason}`, "the store failed"),
            RelayCryptoError: (error) => unavailable(`was not judged or sealed: ${error.reason}`, error.code)
          })
        )
      })
    })
  )

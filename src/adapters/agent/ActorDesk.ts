/** An agent's desk over the actors of this process. */
import { Clock, Deferred, Effect, Option, Schedule, Semaphore } from "effect"
import type { RpcGroup } from "effect/rpc"
import { encodeBase32 } from "../../crypto/Base32.ts"
import type { ActorRef } from "../../kernel/index.ts"
import type { AgentDesk, AgentListener } from "../../ports/AgentDesk.ts"
import { Entropy } from "../../ports/Entropy.ts"
import { AgentTrouble, type InboxMessage } from "../../schemas/AgentLocal.ts"
import type { AgentInboxProtocol } from "../../schemas/protocols/AgentInbox.ts"
import type { SmartAgentProtocol } from "../../schemas/protocols/SmartAgent.ts"
import type { TrustKeeperProtocol } from "../../schemas/protocols/TrustKeeper.ts"
import { appearanceFlaw, letterFlaw, nameFlaw, unlessFlawed } from "./LocalChecks.ts"

/** Whom a desk asks. */
export interface AgentActors {
  readonly agent: ActorRef<RpcGroup.Rpcs<typeof SmartAgentProtocol>>
  readonly inbox: ActorRef<RpcGroup.Rpcs<typeof AgentInboxProtocol>>
  readonly trust: ActorRef<RpcGroup.Rpcs<typeof TrustKeeperProtocol>>
}

const listenerBytes = 16
/**
 * Messages to be kept that wait at the agent at once. Others wait here: a burst must not fill the mailbox, in which what
 * comes from the broker needs room too.
 */
const sendsTogether = 64
/** For each the disk is waited for, one after the other. */
const sendMs = 30_000
/** A listener that leaves must be heard, also where the inbox is busy just now. */
const leaveAgain = Schedule.max([Schedule.spaced("100 millis"), Schedule.recurs(50)])

/** What actors fail with, in the words of the desk. */
const asTrouble = (error: {
  readonly _tag: string
  readonly message: string
  readonly code?: string
  readonly reason?: string
}): AgentTrouble => {
  switch (error._tag) {
    case "CannotSend":
    case "InboxTrouble":
      return new AgentTrouble({ code: error.code as AgentTrouble["code"], reason: error.message })
    case "NoBus":
      return new AgentTrouble({ code: "no_broker", reason: error.message })
    case "CannotRead":
      return new AgentTrouble({ code: "failed", reason: error.message })
    default:
      return new AgentTrouble({ code: "failed", reason: `the agent did not answer: ${error.message}` })
  }
}

/**
 * One listener of the inbox, under a name that no other has. It asks one thing at a time, so that what it holds is exactly
 * what has been answered: a message in an answer that came too late is given again.
 */
const makeListener = (inbox: AgentActors["inbox"], listener: string): AgentListener => {
  const turn = Semaphore.makeUnsafe(1)
  const holds = new Set<number>()
  const forget = (places: ReadonlyArray<number>): void => {
    for (const place of places) holds.delete(place)
  }
  const ask = (maximum: number) =>
    turn.withPermit(
      Effect.suspend(() => inbox.ask("Take", { listener, maximum, holds: [...holds] })).pipe(
        Effect.tap(({ messages }) => Effect.sync(() => messages.forEach(({ place }) => holds.add(place)))),
        Effect.mapError(asTrouble)
      )
    )
  return {
    take: (maximum, waitMs) =>
      Effect.gen(function* () {
        const untilMs = (yield* Clock.currentTimeMillis) + waitMs
        for (;;) {
          const { changed, messages } = yield* ask(maximum)
          const leftMs = untilMs - (yield* Clock.currentTimeMillis)
          if (messages.length > 0 || leftMs <= 0) return messages
          const woken = yield* Effect.timeoutOption(Deferred.await(changed.answer), leftMs)
          if (Option.isNone(woken)) return [] as ReadonlyArray<InboxMessage>
        }
      }),
    done: (places) =>
      turn.withPermit(
        inbox.ask("Done", { listener, places: [...places] }).pipe(
          Effect.mapError(asTrouble),
          // What may not have been forgotten comes again.
          Effect.ensuring(Effect.sync(() => forget(places)))
        )
      )
  }
}

/** The desk of an agent that runs in this process. */
export const makeActorDesk = ({ agent, inbox, trust }: AgentActors) =>
  Effect.map(Entropy, (entropy): AgentDesk => {
    const newListener = Effect.map(entropy.bytes(listenerBytes), (bytes) => encodeBase32(bytes))
    const sends = Semaphore.makeUnsafe(sendsTogether)
    return {
      send: (letter) => {
        const { lifetime_ms: lifetimeMs, ...rest } = letter
        const send = Effect.mapError(
          agent.ask("Send", { ...rest, lifetimeMs }, { timeoutMs: sendMs }),
          asTrouble
        )
        return unlessFlawed(() => letterFlaw(letter), sends.withPermit(send))
      },
      unsent: (id) => Effect.mapError(agent.ask("Unsent", { id }), asTrouble),
      ping: (to) => {
        const ping = agent.ask("Ping", { to }).pipe(
          Effect.mapError(asTrouble),
          // A life that ends takes its open questions along.
          Effect.flatMap(({ answer, waitMs }) =>
            Effect.timeoutOrElse(Deferred.await(answer), {
              duration: waitMs * 2,
              orElse: () => Effect.succeed(null)
            })
          )
        )
        return unlessFlawed(() => nameFlaw(to), ping)
      },
      peers: Effect.mapError(agent.ask("Peers"), asTrouble),
      report: Effect.all({ view: trust.ask("View"), agent: agent.ask("Report") }).pipe(
        Effect.mapError(asTrouble),
        Effect.map(({ agent, view: { claimCode, detail, phase } }) => ({
          enrolment: { phase, claim_code: claimCode, detail },
          agent
        }))
      ),
      show: (appearance) => {
        const { edge_devices: edgeDevices, visible } = appearance
        const show = Effect.mapError(agent.ask("Show", { visible, edgeDevices }), asTrouble)
        return unlessFlawed(() => appearanceFlaw(appearance), show)
      },
      listen: Effect.map(
        Effect.acquireRelease(newListener, (listener) =>
          inbox
            .tell("Leave", { listener })
            .pipe(
              Effect.retry({ while: ({ _tag }) => _tag === "MailboxFull", schedule: leaveAgain }),
              Effect.ignore
            )
        ),
        (listener) => makeListener(inbox, listener)
      )
    }
  })

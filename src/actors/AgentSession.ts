/**
 * One session of an agent with the broker: connects with a proof of its own, subscribes to its inboxes, tells its status and
 * its keys, and lasts until the connection ends. What comes goes to the agent as messages.
 */
import { Effect } from "effect"
import { encodeBase32 } from "../crypto/Base32.ts"
import { toWire } from "../crypto/Messages.ts"
import { AgentCrypto } from "../ports/AgentCrypto.ts"
import { type AgentStanding, AgentTrust } from "../ports/AgentTrust.ts"
import { DeviceClock } from "../ports/DeviceClock.ts"
import { Entropy } from "../ports/Entropy.ts"
import { BusError, type BusLink, type BusOptions, MessageBus } from "../ports/MessageBus.ts"
import type { AgentStatus, ConnectProof, Handshake, Presence, SessionId } from "../schemas/Agents.ts"
import type { MessageId } from "../schemas/Message.ts"
import { brokerServices, topicOf } from "../schemas/Topics.ts"

/** An open session. */
export interface AgentSession {
  readonly id: SessionId
  readonly standing: AgentStanding
  /** Below which all topics are. */
  readonly topicRoot: string
  readonly link: BusLink
}

/** What an agent tells of itself. */
export interface Appearance {
  readonly visible: boolean
  readonly edgeDevices: Handshake["edge_devices"]
}

const idBytes = 16
/** How long saying goodbye may take: the program is about to end. */
const goodbyeMs = 1_000

/** 128 random bits in base32: ids of messages, nonces, sessions. */
export const makeIds = Effect.gen(function* () {
  const entropy = yield* Entropy
  return Effect.map(entropy.bytes(idBytes), (bytes) => encodeBase32(bytes))
})

/** Documents by which an agent says who it is and whether it is there. */
const makeWords = Effect.gen(function* () {
  const crypto = yield* AgentCrypto
  const { nowMs } = yield* DeviceClock
  return {
    status: Effect.fnUntraced(function* (standing: AgentStanding, session: SessionId, status: Presence) {
      const issued_at_ms = yield* nowMs
      const type = "postern/status/v1" as const
      return toWire(
        yield* crypto.sign<AgentStatus>({ type, agent: standing.name, session, status, issued_at_ms })
      )
    }),
    proof: Effect.fnUntraced(function* ({ device, name, server }: AgentStanding, session: SessionId) {
      const issued_at_ms = yield* nowMs
      const type = "postern/mqtt-connect/v1" as const
      return toWire(
        yield* crypto.sign<ConnectProof>({ type, agent: name, device, server, session, issued_at_ms })
      )
    }),
    handshake: Effect.fnUntraced(function* (
      session: AgentSession,
      nonce: MessageId,
      { edgeDevices, visible }: Appearance
    ) {
      const { device, name } = session.standing
      return toWire(
        yield* crypto.sign<Handshake>({
          type: "postern/handshake/v1",
          agent: name,
          device,
          session: session.id,
          nonce,
          agreement: yield* crypto.agreement,
          visible,
          edge_devices: edgeDevices,
          issued_at_ms: yield* nowMs
        })
      )
    })
  }
})

const toServices = (topicRoot: string, inbox: "handshake" | "status") =>
  topicOf(topicRoot, { agent: brokerServices, inbox })

/** Opens sessions. */
export const makeSessions = Effect.gen(function* () {
  const bus = yield* MessageBus
  const trust = yield* AgentTrust
  const words = yield* makeWords
  const newId = yield* makeIds

  /** Tells the keys, to broker services and, where it may be seen, to everybody. The answer will carry the nonce. */
  const shakeHands = Effect.fnUntraced(function* (
    session: AgentSession,
    nonce: MessageId,
    appearance: Appearance
  ) {
    const wire = yield* words.handshake(session, nonce, appearance)
    const { topicRoot } = session
    yield* session.link.publish(toServices(topicRoot, "handshake"), wire)
    const own = topicOf(topicRoot, { agent: session.standing.name, inbox: "public/handshake" })
    // An empty one takes back what was kept for those who come later.
    yield* session.link.publish(own, appearance.visible ? wire : new Uint8Array(0), { retain: true })
  })

  /** Says goodbye, so that others need not wait for the will. */
  const leave = Effect.fnUntraced(function* ({ id, link, standing, topicRoot }: AgentSession) {
    const wire = yield* words.status(standing, id, "DG")
    yield* Effect.timeoutOption(Effect.ignore(link.publish(toServices(topicRoot, "status"), wire)), goodbyeMs)
    yield* link.leave
  })

  const open = Effect.fnUntraced(function* (taking: Pick<BusOptions, "received" | "hasRoom">) {
    const standing = trust.current()
    if (standing === null)
      return yield* new BusError({ code: "none", reason: "no broker services are trusted yet" })
    const id = (yield* newId) as SessionId
    const { connect, topicRoot } = yield* bus.find
    const link = yield* connect({
      name: standing.name,
      password: words.proof(standing, id),
      will: { topic: toServices(topicRoot, "status"), payload: yield* words.status(standing, id, "DU") },
      ...taking
    })
    return { id, standing, topicRoot, link } satisfies AgentSession
  })

  /** Subscribes to its inboxes. A stranger gets one of them alone, and hears by it whether that changes. */
  const subscribe = Effect.fnUntraced(function* ({ link, standing: { name }, topicRoot }: AgentSession) {
    const all = `${topicRoot}/${name}/#`
    const denied = yield* link.subscribe([
      all,
      topicOf(topicRoot, { agent: brokerServices, inbox: "discovery" })
    ])
    // Not beside the others: what two filters take in may come twice.
    if (denied.includes(all)) yield* link.subscribe([topicOf(topicRoot, { agent: name, inbox: "handshake" })])
    if (denied.length > 0)
      yield* Effect.logInfo(`the broker takes ${name} as a stranger: not to be read are ${denied.join(", ")}`)
  })

  return { open, subscribe, shakeHands, leave }
})

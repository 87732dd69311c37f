/**
 * How an agent takes what comes into its inboxes: the word of broker services first, then the sender's own.
 *
 * @module
 */
import { Result } from "effect"
import { type Delivery, type Message, MessageLimits, type Sealed } from "../schemas/Message.ts"
import { type AgentName, brokerServices } from "../schemas/Topics.ts"
import type { Engine } from "./Engine.ts"
import type { HpkeKeyPair } from "./Hpke.ts"
import {
  checkInside,
  checkSigner,
  checkTimes,
  type Judged,
  openSealed,
  RefusedMessage,
  readDelivery,
  readMessage,
  readSealed
} from "./Messages.ts"
import { isSignedByItsKey } from "./SignedJson.ts"

/** What an agent holds an arrival against. */
export interface Receiver {
  readonly name: AgentName
  /** Its own agreement keys by their base64: the newest, and those that something unexpired may be sealed to. */
  readonly agreements: ReadonlyMap<string, HpkeKeyPair>
  /** Signing keys of broker services, by the trust root. */
  readonly services: ReadonlySet<string>
  /** The signing key that the signed directory names for an agent; undefined where it does not name it. */
  readonly keyOf: (agent: AgentName) => string | undefined
}

const refuse = (code: RefusedMessage["code"], detail: string) =>
  Result.fail(new RefusedMessage({ code, detail }))

const byServices = <A extends Delivery | Sealed>(
  engine: Engine,
  receiver: Receiver,
  document: A
): Judged<A> =>
  receiver.services.has(document.signing_key)
    ? checkSigner(engine, document, document.signing_key)
    : refuse("bad_signature", "it is signed with no key of broker services")

/** Whether a message names a key that may be its sender's. Of whom no list tells, broker services vouch for the key. */
const isKeyOfSender = ({ keyOf, services }: Receiver, { from, signing_key }: Message): boolean => {
  if (from === brokerServices) return services.has(signing_key)
  const known = keyOf(from)
  return known === undefined || known === signing_key
}

/** The sender's own word: signed by it, for us, of this level, in its time. */
const checkOrigin = (
  engine: Engine,
  receiver: Receiver,
  level: Message["level"],
  message: Message,
  nowMs: number
): Judged<Message> => {
  if (message.level !== level) return refuse("wrong_level", `a ${message.level} message came as ${level}`)
  if (!message.to.includes(receiver.name)) return refuse("wrong_recipient", "it is for others")
  if (!isKeyOfSender(receiver, message) || !isSignedByItsKey(engine, message))
    return refuse("bad_signature", `it does not carry the signature of ${message.from}`)
  return Result.map(checkTimes(message, nowMs, MessageLimits.receivedFutureMs), () => message)
}

const openFor = (engine: Engine, receiver: Receiver, sealed: Sealed): Judged<Message> =>
  openSealed(engine, (key) => receiver.agreements.get(key), sealed).pipe(
    Result.flatMap(readMessage),
    Result.flatMap((message) => checkInside(sealed, message))
  )

const receiveDelivery = (
  engine: Engine,
  receiver: Receiver,
  inbox: "protected" | "private",
  delivery: Delivery,
  nowMs: number
): Judged<Message> => {
  if (delivery.to !== receiver.name) return refuse("wrong_inbox", `it was delivered to ${delivery.to}`)
  const { content } = delivery
  if (content.type === "postern/message/v1") {
    return inbox === "protected"
      ? checkOrigin(engine, receiver, "protected", content, nowMs)
      : refuse("wrong_inbox", "a message in the clear came to the private inbox")
  }
  if (inbox === "protected" || content.level !== "end_to_end" || content.to !== receiver.name)
    return refuse("wrong_inbox", "what is sealed came to the wrong inbox, or is for another")
  return Result.flatMap(openFor(engine, receiver, content), (message) => {
    if (message.from !== content.from || message.signing_key !== content.signing_key)
      return refuse("wrong_sender", "its inside is of another sender than its outside")
    return message.to.length === 1
      ? checkOrigin(engine, receiver, "end_to_end", message, nowMs)
      : refuse("wrong_recipient", "what is sealed end to end is for one alone")
  })
}

/** Judges what came to an inbox, and opens it. Whether its id came before is for others to say. Never throws. */
export const receive = (
  engine: Engine,
  receiver: Receiver,
  inbox: "protected" | "private",
  wire: Uint8Array,
  nowMs: number
): Judged<Message> => {
  const delivery = readDelivery(wire)
  if (Result.isSuccess(delivery)) {
    return Result.flatMap(byServices(engine, receiver, delivery.success), (signed) =>
      receiveDelivery(engine, receiver, inbox, signed, nowMs)
    )
  }
  if (inbox === "protected") return Result.fail(delivery.failure)
  return readSealed(wire).pipe(
    Result.flatMap((sealed) =>
      sealed.from === brokerServices && sealed.to === receiver.name && sealed.level === "private"
        ? byServices(engine, receiver, sealed)
        : refuse("wrong_recipient", `it is from ${sealed.from} for ${sealed.to}`)
    ),
    Result.flatMap((sealed) => openFor(engine, receiver, sealed)),
    Result.flatMap((message) => checkOrigin(engine, receiver, "private", message, nowMs))
  )
}

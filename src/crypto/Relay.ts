/**
 * What broker services do to a message, as pure functions from bytes to bytes: judge what came, and make what goes out. They
 * know nothing of who may write to whom, nor of ids that came before. Both run in threads of their own.
 *
 * @module
 */
import { Result } from "effect"
import type { Delivery, Message, Sealed } from "../schemas/Message.ts"
import { type AgentName, brokerServices } from "../schemas/Topics.ts"
import type { Engine } from "./Engine.ts"
import { type HpkeKeyPair, hpkeEntropyBytes } from "./Hpke.ts"
import {
  checkInside,
  checkSigner,
  checkTimes,
  type Judged,
  openSealed,
  RefusedMessage,
  readMessage,
  readSealed,
  sealMessage,
  toWire
} from "./Messages.ts"
import { type JsonSigner, signJson } from "./SignedJson.ts"

/** The keys of broker services. Of agreement keys, all that an unexpired message may be sealed to, by their base64. */
export interface RelayKeys {
  readonly signer: JsonSigner
  readonly agreements: ReadonlyMap<string, HpkeKeyPair>
}

/** Something that came to an inbox of broker services, and whom the broker says it is from. */
export interface Arrival {
  readonly inbox: "protected" | "private"
  readonly from: AgentName
  /** The signing key this agent is known by, base64. */
  readonly senderKey: string
  readonly wire: Uint8Array
  readonly nowMs: number
}

/** What was found good: a message in the clear, or one that only its recipient can open. */
export type Accepted =
  | { readonly _tag: "Opened"; readonly message: Message }
  | { readonly _tag: "Closed"; readonly sealed: Sealed }

const refuse = (code: RefusedMessage["code"], detail: string) =>
  Result.fail(new RefusedMessage({ code, detail }))

/** The message itself: its sender's word, whichever way it came. */
const checkMessage = (engine: Engine, arrival: Arrival, message: Message): Judged<Message> => {
  if (message.from !== arrival.from)
    return refuse("wrong_sender", `it says it is from ${message.from}, and came from ${arrival.from}`)
  if (message.level !== arrival.inbox)
    return refuse("wrong_level", `a ${message.level} message came to the inbox ${arrival.inbox}`)
  return Result.flatMap(checkSigner(engine, message, arrival.senderKey), (signed) =>
    Result.map(checkTimes(signed, arrival.nowMs), () => signed)
  )
}

/** The outside of a sealed one: judged before anything is opened. */
const checkOutside = (engine: Engine, arrival: Arrival, sealed: Sealed): Judged<Sealed> => {
  if (sealed.from !== arrival.from)
    return refuse("wrong_sender", `it says it is from ${sealed.from}, and came from ${arrival.from}`)
  const isForUs = sealed.to === brokerServices
  if (isForUs !== (sealed.level === "private"))
    return refuse("wrong_recipient", `a ${sealed.level} message is sealed to ${sealed.to}`)
  return Result.flatMap(checkSigner(engine, sealed, arrival.senderKey), (signed) =>
    Result.map(checkTimes(signed, arrival.nowMs), () => signed)
  )
}

const openPrivate = (engine: Engine, keys: RelayKeys, arrival: Arrival, sealed: Sealed): Judged<Message> =>
  openSealed(engine, (key) => keys.agreements.get(key), sealed).pipe(
    Result.flatMap(readMessage),
    Result.flatMap((message) => checkInside(sealed, message)),
    Result.flatMap((message) => checkMessage(engine, arrival, message))
  )

/** Judges what came: shape, sender, signature, times, inbox; a private one is opened. Never throws. */
export const judgeArrival = (engine: Engine, keys: RelayKeys, arrival: Arrival): Judged<Accepted> => {
  if (arrival.inbox === "protected") {
    return readMessage(arrival.wire).pipe(
      Result.flatMap((message) => checkMessage(engine, arrival, message)),
      Result.map((message): Accepted => ({ _tag: "Opened", message }))
    )
  }
  return readSealed(arrival.wire).pipe(
    Result.flatMap((sealed) => checkOutside(engine, arrival, sealed)),
    Result.flatMap(
      (sealed): Judged<Accepted> =>
        sealed.level === "end_to_end"
          ? Result.succeed({ _tag: "Closed", sealed })
          : Result.map(openPrivate(engine, keys, arrival, sealed), (message) => ({ _tag: "Opened", message }))
    )
  )
}

/** Whom a message goes to, with the key to seal to: raw X25519, base64. */
export interface RelayRecipient {
  readonly name: AgentName
  readonly agreementKey: string
}

/** What goes into one recipient's inbox. */
export interface Outgoing {
  readonly to: AgentName
  readonly inbox: "protected" | "private"
  readonly wire: Uint8Array
}

/** Bytes of entropy that {@link makeOutgoing} takes for each recipient. */
export const outgoingEntropyBytes = hpkeEntropyBytes

/**
 * One document per recipient: protected and end-to-end messages with broker services' word around them, private ones sealed
 * to each recipient's key. A recipient whose key cannot be sealed to is left out.
 */
export const makeOutgoing = (
  engine: Engine,
  { signer }: RelayKeys,
  accepted: Accepted,
  recipients: ReadonlyArray<RelayRecipient>,
  nowMs: number,
  entropy: Uint8Array
): ReadonlyArray<Outgoing> => {
  const deliver = (to: AgentName, content: Delivery["content"]): Uint8Array =>
    toWire(
      signJson<Delivery>(engine, signer, { type: "postern/delivery/v1", to, content, delivered_at_ms: nowMs })
    )
  return recipients.flatMap(({ agreementKey, name }, index): ReadonlyArray<Outgoing> => {
    if (accepted._tag === "Closed")
      return [{ to: name, inbox: "private", wire: deliver(name, accepted.sealed) }]
    const { message } = accepted
    if (message.level === "protected") return [{ to: name, inbox: "protected", wire: deliver(name, message) }]
    const { expires_at_ms, id, issued_at_ms } = message
    const header = {
      id,
      level: "private" as const,
      from: brokerServices,
      to: name,
      issued_at_ms,
      expires_at_ms
    } as const
    const fresh = entropy.subarray(index * outgoingEntropyBytes, (index + 1) * outgoingEntropyBytes)
    const sealed = sealMessage(engine, signer, header, message, agreementKey, fresh)
    return Result.isFailure(sealed) ? [] : [{ to: name, inbox: "private", wire: toWire(sealed.success) }]
  })
}

/** The recipients a message names. */
export const recipientsOf = (accepted: Accepted): ReadonlyArray<AgentName> =>
  accepted._tag === "Closed" ? [accepted.sealed.to] : accepted.message.to

/** Id and end of what was accepted. */
export const identityOf = (accepted: Accepted): Pick<Message, "id" | "expires_at_ms"> =>
  accepted._tag === "Closed" ? accepted.sealed : accepted.message

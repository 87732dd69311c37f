/** Making what an agent sends, out of drafts: signed and sealed when the broker is there, with the keys of that moment. */
import { Effect, Result } from "effect"
import { canonicalBytes } from "../crypto/CanonicalJson.ts"
import { plainBody, toWire } from "../crypto/Messages.ts"
import { AgentCrypto } from "../ports/AgentCrypto.ts"
import type { Draft } from "../ports/AgentStore.ts"
import type { Name } from "../schemas/Ids.ts"
import { type Message, MessageLimits } from "../schemas/Message.ts"
import { CannotSend } from "../schemas/protocols/SmartAgent.ts"
import { type AgentName, brokerServices, topicOf } from "../schemas/Topics.ts"

const shortestLifetimeMs = 1_000

export interface Mail {
  readonly topic: string
  readonly wire: Uint8Array
}

const cannot = (code: CannotSend["code"], reason: string) => Result.fail(new CannotSend({ code, reason }))

/** The draft as it can be kept, its body plain JSON; fails where it cannot go out, ever. */
export const checkedDraft = (draft: Draft): Result.Result<Draft, CannotSend> => {
  const { body, expires_at_ms, issued_at_ms, level, to } = draft
  if (to.length === 0) return cannot("no_recipient", "a message needs a recipient")
  const maximum = level === "end_to_end" || level === "public" ? 1 : MessageLimits.recipients
  if (to.length > maximum)
    return cannot("too_many_recipients", `a ${level} message goes to at most ${maximum}, not to ${to.length}`)
  const lifetimeMs = expires_at_ms - issued_at_ms
  if (lifetimeMs > MessageLimits.lifetimeMs)
    return cannot("too_long_a_life", "a message lives 30 days at the most")
  if (lifetimeMs < shortestLifetimeMs)
    return cannot("malformed_letter", "a message lives a second at least: it has to get there")
  return Result.mapBoth(plainBody(body), {
    onFailure: ({ kind, reason }) =>
      new CannotSend({ code: kind === "size" ? "body_too_large" : "no_json", reason }),
    onSuccess: (plain) => ({ ...draft, body: plain })
  })
}

/** Whose key a draft is sealed to; null where it is not sealed. */
export const holderOf = ({ level, to }: Draft): AgentName | null => {
  if (level === "private") return brokerServices as AgentName
  return level === "end_to_end" ? (to[0] as AgentName) : null
}

/** Makes the mail of a draft, sealed to its holder's key; null where there is none yet, or none that can be sealed to. */
export const makeMail = Effect.gen(function* () {
  const crypto = yield* AgentCrypto
  return Effect.fnUntraced(function* (from: Name, draft: Draft, topicRoot: string, key: string | undefined) {
    const toInbox = (agent: AgentName, inbox: "public" | "protected" | "private") =>
      topicOf(topicRoot, { agent, inbox })
    const { body, expires_at_ms, id, issued_at_ms, level, subject, to } = draft
    if (level === "public") {
      const wire = canonicalBytes({
        type: "postern/public/v1",
        id,
        claimed_from: from,
        issued_at_ms,
        subject,
        body
      })
      return { topic: toInbox(to[0] as AgentName, "public"), wire } satisfies Mail
    }
    const holder = holderOf(draft)
    if (holder !== null && key === undefined) return null
    const message = yield* crypto.sign<Message>({
      type: "postern/message/v1",
      id,
      level,
      from,
      to: [...to],
      issued_at_ms,
      expires_at_ms,
      subject,
      body
    })
    if (level === "protected" || holder === null || key === undefined)
      return { topic: toInbox(brokerServices, "protected"), wire: toWire(message) } satisfies Mail
    const header = { id, level, from, to: holder, issued_at_ms, expires_at_ms }
    const sealed = yield* crypto.seal(header, message, key)
    return Result.isFailure(sealed)
      ? null
      : ({ topic: toInbox(brokerServices, "private"), wire: toWire(sealed.success) } satisfies Mail)
  })
})

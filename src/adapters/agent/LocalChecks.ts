/**
 * What is wrong with what a program asks of an agent, found before anything is done: what a program without types gives, an
 * agent would keep and could never send.
 *
 * @module
 */
import { Effect, Result, Schema } from "effect"
import { canonicalBytes } from "../../crypto/CanonicalJson.ts"
import { bodyFlaw } from "../../crypto/Messages.ts"
import { AgentTrouble, LocalAppearance, LocalLetter } from "../../schemas/AgentLocal.ts"
import { MessageLimits } from "../../schemas/Message.ts"
import { AgentName } from "../../schemas/Topics.ts"

const reasonCharacters = 300

/** Why something is not of the expected shape, in one line. */
export const shapeReason = (error: { readonly message: string }): string =>
  error.message.split("\n").slice(0, 3).join(" ").slice(0, reasonCharacters)

const checkOf = (schema: Schema.Codec<unknown, unknown>, code: AgentTrouble["code"], what: string) => {
  const decode = Schema.decodeUnknownResult(schema)
  return (value: unknown): AgentTrouble | undefined => {
    const read = decode(value)
    return Result.isSuccess(read)
      ? undefined
      : new AgentTrouble({ code, reason: `${what}: ${shapeReason(read.failure)}` })
  }
}

/** All but the body, which has a check of its own. */
const headFlaw = checkOf(
  Schema.Struct({ ...LocalLetter.fields, body: Schema.Unknown }),
  "malformed_letter",
  "the message cannot be sent as it is"
)

/** What is wrong with a letter, but for its body. */
export const letterFlaw = (letter: LocalLetter): AgentTrouble | undefined => {
  const flaw = headFlaw(letter)
  if (flaw !== undefined || letter.to.length <= MessageLimits.recipients) return flaw
  return new AgentTrouble({
    code: "too_many_recipients",
    reason: `a message goes to at most ${MessageLimits.recipients}, not to ${letter.to.length}`
  })
}

/** What is wrong with a letter's body. */
export const letterBodyFlaw = ({ body }: LocalLetter): AgentTrouble | undefined => {
  const flaw = bodyFlaw(body)
  return flaw === undefined
    ? undefined
    : new AgentTrouble({ code: flaw.kind === "size" ? "body_too_large" : "no_json", reason: flaw.reason })
}

/** A body as it is now, however long it waits and whatever its program does with it meanwhile. */
export const bodyCopy = (body: unknown): Result.Result<LocalLetter["body"], AgentTrouble> =>
  Result.try({
    try: () => JSON.parse(new TextDecoder().decode(canonicalBytes(body))) as LocalLetter["body"],
    catch: (error) =>
      new AgentTrouble({ code: "no_json", reason: error instanceof Error ? error.message : String(error) })
  })

/** What is wrong with an agent's name. */
export const nameFlaw = checkOf(AgentName, "malformed", "no agent can have this name")

/** What is wrong with what others may know of an agent. */
export const appearanceFlaw = checkOf(LocalAppearance, "malformed", "others cannot be told this")

/** Does what was asked, where nothing is wrong with it. */
export const unlessFlawed = <A>(
  flawOf: () => AgentTrouble | undefined,
  work: Effect.Effect<A, AgentTrouble>
): Effect.Effect<A, AgentTrouble> =>
  Effect.suspend(() => {
    const flaw = flawOf()
    return flaw === undefined ? work : Effect.fail(flaw)
  })

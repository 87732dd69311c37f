/**
 * Who may write to whom through broker services, as rules of the server's configuration. A message is passed on where one
 * rule at least permits it; where none does it is refused as `not_permitted`. Public messages do not go through broker
 * services, and no rule is about them.
 */
import { Schema } from "effect"
import { SecureLevel } from "./Message.ts"

/** Rules of one policy, and names of one side of a rule. */
export const ruleLimits = { rules: 256, names: 64 } as const

/** An agent's name, or a group of them: one `*` stands for any letters, none as well. */
export const NamePattern = Schema.String.check(
  Schema.isMaxLength(64),
  Schema.isPattern(/^(?:[a-z0-9][a-z0-9-]*|(?:[a-z0-9][a-z0-9-]*)?\*[a-z0-9-]*)$/)
)
export type NamePattern = typeof NamePattern.Type

const side = Schema.Union([
  NamePattern,
  Schema.Array(NamePattern).check(Schema.isMinLength(1), Schema.isMaxLength(ruleLimits.names))
])

/** Whoever `from` names may write to whomever `to` names, at these levels; at all of them where none is named. */
export const MessageRule = Schema.Struct({
  from: side,
  to: side,
  levels: Schema.optionalKey(Schema.Array(SecureLevel).check(Schema.isMinLength(1), Schema.isUnique()))
})
export type MessageRule = typeof MessageRule.Type

export const MessageRules = Schema.Array(MessageRule).check(Schema.isMaxLength(ruleLimits.rules))
export type MessageRules = typeof MessageRules.Type

/** Everybody may write to everybody. */
export const openRules: MessageRules = [{ from: "*", to: "*" }]

const fits = (pattern: NamePattern, name: string): boolean => {
  const at = pattern.indexOf("*")
  if (at < 0) return pattern === name
  const [head, tail] = [pattern.slice(0, at), pattern.slice(at + 1)]
  return name.length >= head.length + tail.length && name.startsWith(head) && name.endsWith(tail)
}

const names = (of: MessageRule["from"], name: string): boolean =>
  typeof of === "string" ? fits(of, name) : of.some((pattern) => fits(pattern, name))

/** Whether rules let one agent write to another at a level. */
export const permits = (rules: MessageRules, from: string, to: string, level: SecureLevel): boolean =>
  rules.some(
    (rule) =>
      (rule.levels === undefined || rule.levels.includes(level)) &&
      names(rule.from, from) &&
      names(rule.to, to)
  )

/** The port `MessagePolicy` by the rules of a configuration. */
import { Layer } from "effect"
import { MessagePolicy } from "../ports/MessagePolicy.ts"
import { type MessageRules, permits } from "../schemas/MessageRules.ts"

export const ConfiguredMessagePolicy = (rules: MessageRules): Layer.Layer<MessagePolicy> =>
  Layer.succeed(MessagePolicy, { permits: (from, to, level) => permits(rules, from, to, level) })

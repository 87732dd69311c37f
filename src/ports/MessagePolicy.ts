/** Who may write to whom, by the server's configuration. */
import { Context } from "effect"
import type { SecureLevel } from "../schemas/Message.ts"
import type { AgentName } from "../schemas/Topics.ts"

export class MessagePolicy extends Context.Service<
  MessagePolicy,
  { readonly permits: (from: AgentName, to: AgentName, level: SecureLevel) => boolean }
>()("postern/ports/MessagePolicy") {}

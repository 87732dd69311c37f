/** The management API's view of messages between devices: questions to the actors that know. */
import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import type { CryptoEngine } from "../../ports/CryptoEngine.ts"
import type { FleetTrust } from "../../ports/FleetTrust.ts"
import { Limits } from "../../schemas/Limits.ts"
import { ManagementApi, NotFound } from "../../schemas/ManagementApi.ts"
import { orUnavailable } from "./ManagementFailures.ts"
import type { ManagementOptions } from "./ManagementHandlers.ts"
import { messagingStatusOf } from "./MessagingStatusOf.ts"
import { pageSize } from "./Pages.ts"

const noMessaging = new NotFound({
  message: "this server carries no messages between devices",
  help: "Turn messaging.enabled on, or look into the server's log for why it does not run."
})

export const MessagingHandlers = (options: ManagementOptions) =>
  HttpApiBuilder.group(ManagementApi, "messaging", (handlers) =>
    Effect.gen(function* () {
      const services = yield* Effect.context<CryptoEngine | FleetTrust>()
      const { directory } = options.actors
      const carried = options.messaging === "on" ? Effect.void : Effect.fail(noMessaging)
      return handlers.handleAll({
        status: () =>
          Effect.andThen(
            carried,
            messagingStatusOf(options.actors).pipe(Effect.provideContext(services), orUnavailable)
          ),
        agents: Effect.fnUntraced(function* ({ query }) {
          yield* carried
          const limit = Math.min(pageSize(query.limit), Limits.agentsPerPage)
          const rows = yield* orUnavailable(
            directory.ask("Agents", {
              behind: query.after ?? null,
              status: query.status ?? null,
              limit: limit + 1
            })
          )
          const agents = rows.slice(0, limit)
          return { agents, next: rows.length > limit ? (agents.at(-1)?.agent ?? null) : null }
        }),
        agent: Effect.fnUntraced(function* ({ params }) {
          yield* carried
          const found = yield* orUnavailable(directory.ask("Agent", { agent: params.agent }))
          return found ?? (yield* new NotFound({ message: "no device of this name has come as an agent" }))
        }),
        refusals: Effect.fnUntraced(function* ({ query }) {
          yield* carried
          const limit = pageSize(query.limit)
          return { refusals: yield* orUnavailable(directory.ask("Refusals", { limit })) }
        })
      })
    })
  )

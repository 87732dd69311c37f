/**
 * `postern audit`: who changed what on the server.
 *
 * @module
 */
import { Clock, Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { ManagementClient } from "../../adapters/operator/ManagementClient.ts"
import type { AuditPage } from "../../schemas/ManagementViews.ts"
import { optionalDurationFlag } from "./Flags.ts"
import { out, outJson } from "./Screen.ts"
import { Json, withServer } from "./Settings.ts"
import { showTime, table, visible } from "./Text.ts"

const optionalText = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(Flag.withMetavar(metavar), Flag.withDescription(description), Flag.optional)

export const auditCommand = Command.make(
  "audit",
  {
    actor: optionalText(
      "actor",
      "NAME",
      "Only what this token's holder did; console is the server's machine"
    ),
    action: optionalText("action", "ACTION", "Only this, as it stands in the log: submit, accept, revoke …"),
    since: optionalDurationFlag("since", "Only what happened in this time"),
    limit: Flag.Int("limit").pipe(
      Flag.withMetavar("LINES"),
      Flag.withDescription("How many lines, the newest"),
      Flag.withDefault(100)
    )
  },
  Effect.fnUntraced(function* ({ action, actor, limit, since }) {
    const client = yield* ManagementClient
    const nowMs = yield* Clock.currentTimeMillis
    const filter = {
      actor: Option.getOrUndefined(actor),
      action: Option.getOrUndefined(action),
      since_ms: Option.getOrUndefined(Option.map(since, (durationMs) => Math.max(0, nowMs - durationMs)))
    }
    const entries: Array<(typeof AuditPage.Type)["entries"][number]> = []
    let before: number | undefined
    while (entries.length < limit) {
      const query = { ...filter, before, limit: limit - entries.length }
      const page = yield* client.call("read the audit log", (api) => api.server.audit({ query }))
      entries.push(...page.entries)
      if (page.next === null) break
      before = page.next
    }
    if (yield* Json) return yield* outJson({ entries })
    if (entries.length === 0) return yield* out("There is no such line.\n")
    const rows = entries.map((entry) => [
      showTime(entry.at_ms),
      visible(entry.actor),
      visible(entry.action),
      visible(entry.subject)
    ])
    yield* out(table(["WHEN", "WHO", "DID", "TO"], rows))
  }, withServer)
).pipe(
  Command.withDescription("Who changed what on the server, the newest first"),
  Command.withExamples([
    { command: "postern audit --actor alice --since 7d", description: "A week of one person" }
  ])
)

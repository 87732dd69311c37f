/**
 * `postern history`: what happened to a device, as it remembers it itself, or its figures as the server keeps them.
 *
 * @module
 */
import { resolve } from "node:path"
import { Clock, Effect, Option, Result, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { askControl } from "../../adapters/ControlSocket.ts"
import { ManagementClient } from "../../adapters/operator/ManagementClient.ts"
import {
  type HistoryEvent,
  type HistoryKind,
  HistoryView,
  historyKinds,
  historyTexts
} from "../../schemas/History.ts"
import { Limits } from "../../schemas/Limits.ts"
import { shownDevice } from "./DevicesCommand.ts"
import { failure, usage } from "./Failure.ts"
import { seriesLines } from "./HealthViews.ts"
import { out, outJson, say } from "./Screen.ts"
import { Json, withHome, withServer } from "./Settings.ts"
import { parseDuration, properties, showTime, table, visible } from "./Text.ts"

const decodeView = Schema.decodeUnknownResult(HistoryView)

/** The history of the device that runs on this machine, by the control socket in its state folder. */
const localHistory = (folder: string) =>
  Effect.gen(function* () {
    const answer = yield* askControl({ stateFolder: resolve(folder), request: "history" }).pipe(
      Effect.mapError((error) =>
        failure(`${error.message}. Is the client running, and is this its state folder?`)
      )
    )
    const view = decodeView(answer)
    if (Result.isSuccess(view)) return view.success
    return yield* failure("The answer is no history. Is it a Postern client of this version?")
  })

const eventRow = ({ at_ms, detail, kind, subject }: HistoryEvent): ReadonlyArray<string> => [
  showTime(at_ms),
  kind,
  visible(subject),
  visible(detail)
]

const showLocal = Effect.fnUntraced(function* (
  folder: string,
  kind: Option.Option<HistoryKind>,
  limit: number
) {
  const view = yield* localHistory(folder)
  const wanted = view.events.filter((event) => Option.isNone(kind) || event.kind === kind.value)
  const events = wanted.slice(0, limit)
  if (yield* Json) return yield* outJson({ ...view, events })
  if (events.length === 0) yield* out("Nothing yet.\n")
  else yield* out(table(["TIME", "WHAT", "OF WHAT", "DETAIL"], [...events].reverse().map(eventRow)))
  const samples = [...view.samples].reverse()
  const first = samples[0]
  if (first !== undefined) yield* out(`\nsince ${showTime(first.at_ms)}\n${properties(seriesLines(samples))}`)
  if (view.trouble !== null) yield* say(`The history is not complete: ${visible(view.trouble)}`)
})

const showRemote = Effect.fnUntraced(function* (name: string, sinceMs: number, points: number) {
  const client = yield* ManagementClient
  const nowMs = yield* Clock.currentTimeMillis
  const view = yield* shownDevice(name)
  const series = yield* client.call("ask for the device's figures", (api) =>
    api.devices.series({
      params: { device: view.device },
      query: { from_ms: Math.max(0, nowMs - sinceMs), points }
    })
  )
  if (yield* Json) return yield* outJson({ device: view.device, ...series })
  const first = series.samples[0]
  if (first === undefined) return yield* out("The server has no figures of that time.\n")
  yield* out(`since ${showTime(first.at_ms)}\n${properties(seriesLines(series.samples))}`)
})

const kinds = Object.entries(historyTexts).map(([kind, text]) => `${kind}: ${text}`)

export const historyCommand = Command.make(
  "history",
  {
    device: Argument.String("device").pipe(
      Argument.withDescription(
        "A device's figures as the server keeps them, instead of this machine's history"
      ),
      Argument.optional
    ),
    state: Flag.String("state").pipe(
      Flag.withMetavar("DIR"),
      Flag.withDescription("The state folder of the client on this machine"),
      Flag.withDefault("/var/lib/postern")
    ),
    kind: Flag.Literals("kind", historyKinds).pipe(
      Flag.withDescription(`Only events of this kind. ${kinds.join(" ")}`),
      Flag.optional
    ),
    limit: Flag.Int("limit").pipe(
      Flag.withMetavar("N"),
      Flag.withDescription("So many events at the most, the newest"),
      Flag.withDefault(100)
    ),
    since: Flag.String("since").pipe(
      Flag.withMetavar("DURATION"),
      Flag.withDescription("With a device: how far back, such as 6h or 30d"),
      Flag.withDefault("7d")
    )
  },
  Effect.fnUntraced(function* ({ device, kind, limit, since, state }) {
    if (Option.isNone(device)) return yield* withHome(showLocal(state, kind, Math.max(1, limit)))
    const sinceMs = parseDuration(since)
    if (sinceMs === undefined) return yield* usage("--since takes a duration such as 90m, 6h or 30d")
    return yield* withServer(showRemote(device.value, sinceMs, Math.min(60, Limits.seriesPoints)))
  })
).pipe(
  Command.withDescription(
    "What happened on the device on this machine: starts, outages, orders, conditions; or a device's figures over time"
  ),
  Command.withExamples([
    { command: "postern history --state /var/lib/postern", description: "On the device, newest last" },
    {
      command: "postern history pi-cellar --since 30d",
      description: "From anywhere: its figures on the server"
    }
  ])
)

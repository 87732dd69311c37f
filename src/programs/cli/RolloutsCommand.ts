/**
 * `postern rollouts`: looking at rollouts, steering them, following one to its end.
 *
 * @module
 */
import { Clock, Effect } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { ManagementClient } from "../../adapters/operator/ManagementClient.ts"
import { rolloutRecord, rolloutRecords, writeRolloutRecord } from "../../adapters/operator/RolloutRecords.ts"
import { isEnded, type RolloutAction, type RolloutControl, type RolloutView } from "../../schemas/Rollout.ts"
import { isFinal } from "../../schemas/WorkOrder.ts"
import { raise } from "./Alarms.ts"
import { confirm } from "./Ask.ts"
import { failure, silentExit, usage } from "./Failure.ts"
import { yesFlag } from "./Flags.ts"
import { cancelJobWith } from "./JobsCommand.ts"
import { followRollout } from "./RolloutFollowing.ts"
import { currentRollout, type JudgedRollout, judgeRollout } from "./RolloutVerification.ts"
import {
  countsText,
  deviceRow,
  deviceTableHeader,
  rolloutJson,
  rolloutLines,
  rolloutRow,
  rolloutTableHeader,
  stateText
} from "./RolloutViews.ts"
import { out, outJson, say } from "./Screen.ts"
import { Json, requireRoot, withServer } from "./Settings.ts"
import { counted, properties, table, visible } from "./Text.ts"
import { unlocked } from "./Unlock.ts"

const rolloutArgument = Argument.String("rollout").pipe(
  Argument.withDescription("The rollout's id, or the beginning of it (rol_abcd…)")
)

const listed = (open: boolean) =>
  Effect.gen(function* () {
    const client = yield* ManagementClient
    const query = open ? { open: "true" as const } : {}
    const { rollouts } = yield* client.call("list the rollouts", (api) => api.rollouts.list({ query }))
    return rollouts
  })

/** The rollout that a text means. */
const shownRollout = (text: string) =>
  Effect.gen(function* () {
    if (!/^rol_[a-z2-7]{4,26}$/.test(text))
      return yield* usage(`${text} is no rollout's id, nor the beginning of one`)
    const meant = (yield* listed(false)).filter((view) => view.id.startsWith(text))
    if (meant.length === 1) return (meant[0] as RolloutView).id
    return yield* failure(
      meant.length === 0
        ? `There is no rollout ${text}. See postern rollouts list`
        : `${meant.length} rollouts begin with ${text}. Give more of the id`
    )
  })

/** Rollouts that were submitted from here, had not ended, and are not shown any more. */
const forgotten = (shown: ReadonlyArray<RolloutView>) =>
  Effect.gen(function* () {
    const records = yield* rolloutRecords
    const missing = records.filter(
      (record) => record.submitted && !record.ended && !shown.some((view) => view.id === record.id)
    )
    const looked = yield* Effect.forEach(missing, ({ id }) =>
      currentRollout(id).pipe(
        Effect.as(null),
        Effect.catch((problem) => Effect.succeed(problem.kind === "not_found" ? id : null))
      )
    )
    return looked.flatMap((id) =>
      id === null ? [] : [`the server forgot the rollout ${id}, which was submitted from here`]
    )
  })

const list = Command.make(
  "list",
  {
    open: Flag.Boolean("open").pipe(
      Flag.withDescription("Only those that have not ended"),
      Flag.withDefault(false),
      Flag.withoutNegation
    )
  },
  Effect.fnUntraced(function* ({ open }) {
    const nowMs = yield* Clock.currentTimeMillis
    const rollouts = yield* listed(open)
    const alarms = yield* forgotten(rollouts)
    if (yield* Json) yield* outJson({ rollouts, alarms })
    else if (rollouts.length === 0)
      yield* out("No rollouts. Begin one: postern jobs submit FILE --group GROUP\n")
    else
      yield* out(
        table(
          rolloutTableHeader,
          rollouts.map((view) => rolloutRow(view, nowMs))
        )
      )
    yield* raise(alarms)
  }, withServer)
).pipe(
  Command.withDescription("List rollouts, as the server counts them; postern rollouts show verifies"),
  Command.withExamples([{ command: "postern rollouts list --open", description: "What is under way" }])
)

/** Prints a judged rollout: what it is, and how each device stands. */
const printRollout = (judged: JudgedRollout) =>
  Effect.gen(function* () {
    const nowMs = yield* Clock.currentTimeMillis
    yield* out(properties(rolloutLines(judged, nowMs)))
    yield* out(`\n${table(deviceTableHeader, judged.devices.map(deviceRow))}`)
  })

/** Remembers that a rollout was seen to have ended: the server may forget it from now on. */
const noteEnd = ({ view }: JudgedRollout) =>
  Effect.gen(function* () {
    const record = yield* rolloutRecord(view.id)
    if (record === undefined || record.ended || !isEnded(view.state)) return
    yield* writeRolloutRecord({ ...record, ended: true })
  })

const show = Command.make(
  "show",
  { rollout: rolloutArgument },
  Effect.fnUntraced(function* ({ rollout }) {
    const id = yield* shownRollout(rollout)
    const judged = yield* judgeRollout(yield* currentRollout(id), id, true)
    if (yield* Json) yield* outJson(rolloutJson(judged))
    else yield* printRollout(judged)
    yield* noteEnd(judged)
    yield* raise(judged.alarms)
  }, withServer)
).pipe(
  Command.withDescription("Show one rollout: every device, its outcome, and its verified receipt"),
  Command.withExamples([{ command: "postern rollouts show rol_abcd", description: "By the id's beginning" }])
)

const follow = Command.make(
  "follow",
  { rollout: rolloutArgument },
  Effect.fnUntraced(function* ({ rollout }) {
    const id = yield* shownRollout(rollout)
    const judged = yield* followRollout(id)
    if (yield* Json) yield* outJson({ event: "end", ...rolloutJson(judged) })
    else yield* printRollout(judged)
    yield* noteEnd(judged)
    yield* raise(judged.alarms)
    const { state } = judged.view
    if (state === "paused")
      yield* say(
        `It is paused. Go on with postern rollouts resume ${id}, or end it with postern rollouts abort ${id}`
      )
    if (state !== "completed") return yield* silentExit(1)
  }, withServer)
).pipe(
  Command.withDescription(
    "Follow a rollout until it has ended or is paused; exit code 0 when it completed without an alarm"
  ),
  Command.withExamples([{ command: "postern rollouts follow rol_abcd", description: "With a bar" }])
)

/**
 * A resume waives what was signed for, up to its phase. Where the server names a later phase than the devices' receipts
 * have reached, it would waive what has not happened yet: only for a person who knows why.
 */
const confirmPhase = ({ reachable, view: { id, phase } }: JudgedRollout, yes: boolean) =>
  Effect.gen(function* () {
    if (phase <= reachable) return
    yield* say(
      `ALARM: the server says that ${id} is in phase ${phase + 1}, but phase ${reachable + 1} has not succeeded by receipts that hold here. Look first: postern rollouts show ${id}`
    )
    const isSure =
      yes ||
      (yield* confirm(
        `Sign that every phase up to ${phase + 1} may be gone on from?`,
        "There is no terminal to ask. Say --yes"
      ))
    if (!isSure) return yield* failure("Nothing was signed")
  })

/** Signs a word to a rollout and gives it to the server. */
const steer = (text: string, action: RolloutAction, yes = true) =>
  Effect.gen(function* () {
    const client = yield* ManagementClient
    const { root } = yield* requireRoot
    const id = yield* shownRollout(text)
    const judged = yield* judgeRollout(yield* currentRollout(id), id, false)
    if (isEnded(judged.view.state))
      return yield* failure(`The rollout ${id} has ended already: ${judged.view.state}`)
    if (action === "resume") yield* confirmPhase(judged, yes)
    const keys = yield* unlocked
    const control: RolloutControl = {
      type: "postern/rollout-control/v1",
      rollout: id,
      action,
      phase: judged.view.phase,
      sequence: judged.view.control_sequence + 1,
      root_version: root.version,
      issued_at_ms: yield* Clock.currentTimeMillis
    }
    const { envelope } = keys.sign("rolloutControl", control)
    const view = yield* client.call(`${action} the rollout`, (api) =>
      api.rollouts.control({ params: { id }, payload: envelope })
    )
    return { view, judged, keys }
  })

/** Says how a rollout stands after a word to it. */
const said = (view: RolloutView, canceled?: number) =>
  Effect.gen(function* () {
    if (yield* Json)
      return yield* outJson({ ...view, ...(canceled === undefined ? {} : { orders_canceled: canceled }) })
    yield* out(`${view.id}: ${stateText(view)}; ${countsText(view.counts)}\n`)
    if (canceled !== undefined && canceled > 0)
      yield* out(
        `${counted(canceled, "cancel is", "cancels are")} on the way to devices that may have their order.\n`
      )
  })

const pause = Command.make(
  "pause",
  { rollout: rolloutArgument },
  Effect.fnUntraced(function* ({ rollout }) {
    const { judged, view } = yield* steer(rollout, "pause")
    yield* said(view)
    yield* raise(judged.alarms)
  }, withServer)
).pipe(
  Command.withDescription("Hand out no more orders of a rollout; what was handed out goes on"),
  Command.withExamples([{ command: "postern rollouts pause rol_abcd", description: "Then look" }])
)

const resume = Command.make(
  "resume",
  { rollout: rolloutArgument, yes: yesFlag },
  Effect.fnUntraced(function* ({ rollout, yes }) {
    const { judged, view } = yield* steer(rollout, "resume", yes)
    yield* said(view)
    yield* raise(judged.alarms)
  }, withServer)
).pipe(
  Command.withDescription("Go on with a paused rollout, accepting the failed and the missing so far"),
  Command.withExamples([
    { command: "postern rollouts resume rol_abcd", description: "From where it stopped" }
  ])
)

const abort = Command.make(
  "abort",
  { rollout: rolloutArgument, yes: yesFlag },
  Effect.fnUntraced(function* ({ rollout, yes }) {
    const isSure =
      yes ||
      (yield* confirm(
        `End the rollout ${visible(rollout)} and cancel what runs of it?`,
        "There is no terminal to ask. Say --yes"
      ))
    if (!isSure) return yield* failure("Nothing was signed")
    const client = yield* ManagementClient
    const { judged, keys, view } = yield* steer(rollout, "abort")
    const { jobs } = yield* client.call("look at the rollout's orders", (api) =>
      api.rollouts.jobs({ params: { id: view.id } })
    )
    // The server stops them on its own word already; a signed cancel is what the devices need not take its word for.
    const running = jobs.filter((job) => !isFinal(job.state))
    yield* Effect.forEach(running, (job) => cancelJobWith(keys, job), { discard: true })
    yield* said(view, running.length)
    yield* raise(judged.alarms)
  }, withServer)
).pipe(
  Command.withDescription("End a rollout: what waits is taken back, what was handed out is canceled, signed"),
  Command.withExamples([{ command: "postern rollouts abort rol_abcd", description: "Asks first" }])
)

export const rolloutsCommand = Command.make("rollouts").pipe(
  Command.withDescription("Packages on their way to many devices, in phases"),
  Command.withSubcommands([list, show, follow, pause, resume, abort])
)

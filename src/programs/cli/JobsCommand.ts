/**
 * `postern jobs`: sending work, looking at it, following its output, ending it, fetching what it returned.
 *
 * @module
 */
import { resolve } from "node:path"
import { Clock, Effect, Option, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { chooseDevice, deviceRecords } from "../../adapters/operator/DeviceBook.ts"
import { ManagementClient } from "../../adapters/operator/ManagementClient.ts"
import type { OperatorKeys } from "../../adapters/operator/OperatorKeys.ts"
import { OrderId } from "../../schemas/Ids.ts"
import type { JobView } from "../../schemas/ManagementApi.ts"
import { type CancelOrder, isFinal } from "../../schemas/WorkOrder.ts"
import { raise, showAlarms } from "./Alarms.ts"
import { failure, silentExit, usage } from "./Failure.ts"
import { currentJob, type Followed, followJob, readOutput } from "./Following.ts"
import { jsonOutput, plainOutput } from "./JobOutput.ts"
import { endingText, jobJson, jobLines, jobRow, jobTableHeader } from "./JobViews.ts"
import { allJobs } from "./Lists.ts"
import { fetchResults } from "./Results.ts"
import { green, out, outJson, say } from "./Screen.ts"
import { Json, requireRoot, withServer } from "./Settings.ts"
import { submitCommand } from "./SubmitCommand.ts"
import { counted, properties, showDuration, showSize, table } from "./Text.ts"
import { unlocked } from "./Unlock.ts"
import { type JudgedJob, judgeJob, judgeWithChain, syncReceipts } from "./Verification.ts"

const jobArgument = Argument.String("job").pipe(
  Argument.withDescription("The job's id, or the end of it (at least 6 characters)")
)

const isOrderId = Schema.is(OrderId)

/** The job that a text means: its id, or the end of it. Ids begin with the time, so their beginnings are alike. */
const shownJob = (text: string) =>
  Effect.gen(function* () {
    if (isOrderId(text)) return yield* currentJob(text)
    if (!/^[0-9a-f-]{6,35}$/.test(text)) return yield* usage(`${text} is no job's id, nor the end of one`)
    const jobs = yield* allJobs({})
    const meant = jobs.filter((job) => job.id.endsWith(text))
    if (meant.length === 1) return meant[0] as JobView
    return yield* failure(
      meant.length === 0
        ? `There is no job that ends with ${text}. See postern jobs list`
        : `${meant.length} jobs end with ${text}. Give more of the id`
    )
  })

const list = Command.make(
  "list",
  {
    device: Flag.String("device").pipe(
      Flag.withMetavar("DEVICE"),
      Flag.withDescription("Only this device's"),
      Flag.optional
    ),
    open: Flag.Boolean("open").pipe(
      Flag.withDescription("Only those that have not ended"),
      Flag.withDefault(false),
      Flag.withoutNegation
    )
  },
  Effect.fnUntraced(function* ({ device, open }) {
    const client = yield* ManagementClient
    const nowMs = yield* Clock.currentTimeMillis
    const chosen = Option.isSome(device) ? yield* chooseDevice(device.value, yield* deviceRecords) : undefined
    const query = {
      ...(chosen === undefined ? {} : { device: chosen.device }),
      ...(open ? { open: "true" as const } : {})
    }
    const { jobs, next } = yield* client.call("list the jobs", (api) => api.jobs.list({ query }))
    const judged = yield* Effect.forEach(jobs, judgeJob)
    const devices = [
      ...new Set(judged.flatMap(({ record }) => (record === undefined ? [] : [record.device])))
    ]
    const chains = yield* Effect.forEach(devices, syncReceipts)
    const alarms = [...judged.flatMap((job) => job.alarms), ...chains.flat()]
    if (yield* Json) yield* outJson({ jobs: judged.map(jobJson), alarms })
    else if (judged.length === 0) yield* out("No jobs. Give a device work: postern run DEVICE -- COMMAND\n")
    else
      yield* out(
        table(
          jobTableHeader,
          judged.map((job) => jobRow(job, nowMs))
        )
      )
    if (next !== null)
      yield* say(`These are the newest ${jobs.length}; narrow the list with --device or --open.`)
    yield* raise(alarms)
  }, withServer)
).pipe(
  Command.withDescription("List jobs; RECEIPT says whether the device's own word was verified"),
  Command.withExamples([
    { command: "postern jobs list --device pi-cellar --open", description: "What is still to be done" }
  ])
)

const show = Command.make(
  "show",
  { job: jobArgument },
  Effect.fnUntraced(function* ({ job }) {
    const nowMs = yield* Clock.currentTimeMillis
    const judged = yield* judgeWithChain(yield* shownJob(job))
    if (yield* Json) yield* outJson(jobJson(judged))
    else {
      yield* out(properties(jobLines(judged, nowMs)))
      if (judged.receipt !== null) yield* out(`\n${yield* green("verified")}\n`)
    }
    yield* raise(judged.alarms)
  }, withServer)
).pipe(
  Command.withDescription("Show one job and its verified receipt"),
  Command.withExamples([{ command: "postern jobs show 3f9c2a", description: "By the end of its id" }])
)

/** What is wrong with a followed job, beyond the alarms of the job itself. */
const outputAlarms = ({ job, outputVerified }: Followed): ReadonlyArray<string> =>
  outputVerified === false
    ? [`the output of job ${job.view.id} is not the one that the receipt speaks of`]
    : []

/** The last line of a followed job. */
export const endingLine = (job: JudgedJob) =>
  Effect.gen(function* () {
    if (job.receipt === null) return `${job.view.state}, no receipt yet`
    const { document } = job.receipt
    const took = document.usage === null ? "" : ` in ${showDuration(document.usage.wall_ms)}`
    return `${yield* green("verified")}: ${endingText(document)} on ${job.record?.name ?? job.view.device}${took}, receipt ${document.number}`
  })

/** Follows a job to its end and says how it ended; gives the job. */
export const followToEnd = (id: OrderId, keys: OperatorKeys, isQuiet: boolean) =>
  Effect.gen(function* () {
    const isJson = yield* Json
    return yield* Effect.scoped(
      Effect.gen(function* () {
        const sink = isJson ? yield* jsonOutput : yield* plainOutput(isQuiet)
        const followed = yield* followJob(id, keys, sink).pipe(
          Effect.onInterrupt(() =>
            Effect.andThen(sink.close, say(`postern: the job goes on. End it with postern jobs cancel ${id}`))
          )
        )
        yield* sink.close
        const alarms = [...followed.job.alarms, ...outputAlarms(followed)]
        if (isJson) {
          const verified = followed.outputVerified
          yield* outJson({ event: "end", ...jobJson(followed.job), output_verified: verified, alarms })
        } else if (!isQuiet || alarms.length > 0) yield* say(`postern: ${yield* endingLine(followed.job)}`)
        yield* showAlarms(alarms)
        return { ...followed, alarms }
      })
    )
  })

const logs = Command.make(
  "logs",
  {
    job: jobArgument,
    follow: Flag.Boolean("follow").pipe(
      Flag.withAlias("f"),
      Flag.withDescription("Go on until the job has ended, then check its output against the receipt"),
      Flag.withDefault(false),
      Flag.withoutNegation
    )
  },
  Effect.fnUntraced(function* ({ follow, job }) {
    const view = yield* shownJob(job)
    if (follow) {
      const { alarms, job: ended } = yield* followToEnd(view.id, yield* unlocked, false)
      if (alarms.length > 0 || ended.receipt === null) return yield* silentExit(1)
      return
    }
    const keys = yield* unlocked
    const isJson = yield* Json
    const followed = yield* Effect.scoped(
      Effect.gen(function* () {
        const sink = isJson ? yield* jsonOutput : yield* plainOutput(true)
        const read = yield* readOutput(view, keys, sink)
        yield* sink.close
        return read
      })
    )
    if (isJson)
      yield* outJson({ event: "end", ...jobJson(followed.job), output_verified: followed.outputVerified })
    yield* raise([...followed.job.alarms, ...outputAlarms(followed)])
  }, withServer)
).pipe(
  Command.withDescription(
    "Print a job's output: its stdout to stdout, its stderr to stderr. On a terminal, control characters but newline, tab, return and colours are made visible; in a file or pipe every byte is as it was."
  ),
  Command.withExamples([
    { command: "postern jobs logs -f 3f9c2a", description: "Live, while it runs" },
    { command: "postern jobs logs 3f9c2a > output.bin", description: "Byte for byte" }
  ])
)

/** Signs a cancel for a job and gives it to the server. */
export const cancelJob = (view: JobView) => Effect.flatMap(unlocked, (keys) => cancelJobWith(keys, view))

/** The same, with keys that are open already. */
export const cancelJobWith = (keys: OperatorKeys, view: JobView) =>
  Effect.gen(function* () {
    const client = yield* ManagementClient
    const { root } = yield* requireRoot
    const nowMs = yield* Clock.currentTimeMillis
    const cancel: CancelOrder = {
      type: "postern/cancel/v1",
      order: view.id,
      device: view.device,
      root_version: root.version,
      issued_at_ms: nowMs,
      // The order may still be on its way until it expires; it may run for long after that.
      expires_at_ms: Math.max(view.expires_at_ms, nowMs + 86_400_000)
    }
    const { envelope } = keys.sign("cancel", cancel)
    yield* client.call("cancel the job", (api) =>
      api.jobs.cancel({ params: { id: view.id }, payload: envelope })
    )
  })

const cancel = Command.make(
  "cancel",
  {
    job: jobArgument,
    stop: Flag.Boolean("stop").pipe(
      Flag.withDescription(
        "Only ask the server to stop it, without signing: works without the operator's keys"
      ),
      Flag.withDefault(false),
      Flag.withoutNegation
    )
  },
  Effect.fnUntraced(function* ({ job, stop }) {
    const client = yield* ManagementClient
    const view = yield* shownJob(job)
    if (isFinal(view.state)) return yield* failure(`The job ${view.id} has ended already: ${view.state}`)
    if (stop) yield* client.call("stop the job", (api) => api.jobs.stop({ params: { id: view.id } }))
    else yield* cancelJob(view)
    if (yield* Json) return yield* outJson({ job: view.id, signed: !stop })
    yield* out(
      `${stop ? "Stop" : "Cancel"} of ${view.id} is on its way. The device's receipt will say what became of it.\n`
    )
  }, withServer)
).pipe(
  Command.withDescription("Cancel a job, in whatever state it is; signed, so that the device obeys"),
  Command.withExamples([{ command: "postern jobs cancel 3f9c2a", description: "Then see postern jobs show" }])
)

const results = Command.make(
  "results",
  {
    job: jobArgument,
    output: Flag.String("output").pipe(
      Flag.withAlias("o"),
      Flag.withMetavar("DIR"),
      Flag.withDescription(
        "Where to put the files: a new or empty folder; default results-JOB in this folder"
      ),
      Flag.optional
    )
  },
  Effect.fnUntraced(function* ({ job, output }) {
    const judged = yield* judgeWithChain(yield* shownJob(job))
    const { id } = judged.view
    yield* raise(judged.alarms)
    if (judged.receipt === null)
      return yield* failure(
        `There is no receipt for ${id} yet: it is ${judged.view.state}. Follow it with postern jobs logs -f ${id}`
      )
    const summary = judged.receipt.document.artifacts
    if (summary === null)
      return yield* failure(`The job ${id} returned no files: ${endingText(judged.receipt.document)}`)
    const folder = resolve(Option.getOrElse(output, () => `results-${id}`))
    const keys = yield* unlocked
    const found = yield* fetchResults(id, summary, keys, folder)
    if (yield* Json)
      return yield* outJson({
        job: id,
        folder,
        entries: found.entries,
        bytes: found.unpackedBytes,
        verified: true
      })
    yield* out(`${folder}\n`)
    yield* say(
      `${yield* green("verified")}: ${counted(found.entries, "entry", "entries")}, ${showSize(found.unpackedBytes)}`
    )
  }, withServer)
).pipe(
  Command.withDescription(
    "Fetch the files a job returned; checked against its verified receipt, then unpacked"
  ),
  Command.withExamples([
    { command: "postern jobs results 3f9c2a -o stats", description: "Into the new folder stats" }
  ])
)

export const jobsCommand = Command.make("jobs").pipe(
  Command.withDescription("Work given to devices"),
  Command.withSubcommands([submitCommand, list, show, logs, cancel, results])
)

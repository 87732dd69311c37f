/**
 * `postern run`: builds, signs, submits and follows in one step, as if the command ran here.
 *
 * @module
 */
import { statSync } from "node:fs"
import { basename, join, resolve } from "node:path"
import { Effect } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { errorText } from "../../adapters/files/AtomicFile.ts"
import { buildPackage } from "../../adapters/packages/BuildPackage.ts"
import type { SourceFile } from "../../adapters/packages/SourceFiles.ts"
import { Limits } from "../../schemas/Limits.ts"
import { deviceToWork } from "./Colleagues.ts"
import { silentExit, usage } from "./Failure.ts"
import { followToEnd } from "./JobsCommand.ts"
import { orderFlags, planOrder, submitOrder } from "./Orders.ts"
import { planFlags, planPackage } from "./PackagePlan.ts"
import { temporaryFolder } from "./Results.ts"
import { outJson, Screen, say } from "./Screen.ts"
import { Json, withServer } from "./Settings.ts"
import { counted } from "./Text.ts"
import { unlocked } from "./Unlock.ts"
import { uploadPayload } from "./Upload.ts"

/** `PATH` or `PATH=NAME`: a file of this machine, and what it is called in the package. */
const sourceFile = (text: string) =>
  Effect.gen(function* () {
    const at = text.indexOf("=")
    const hostPath = resolve(at > 0 ? text.slice(0, at) : text)
    const path = at > 0 ? text.slice(at + 1) : basename(hostPath)
    const found = yield* Effect.try({
      try: () => statSync(hostPath),
      catch: (error) => usage(`Could not take ${hostPath} along: ${errorText(error)}`)
    })
    if (!found.isFile())
      return yield* usage(`${hostPath} is not a plain file. For folders use postern package build`)
    return {
      path,
      sizeBytes: found.size,
      executable: (found.mode & 0o111) !== 0,
      content: { hostPath }
    } satisfies SourceFile
  })

export const runCommand = Command.make(
  "run",
  {
    device: Argument.String("device").pipe(Argument.withDescription("Name, id, or the beginning of an id")),
    command: Argument.String("command").pipe(
      Argument.withDescription("Program and arguments, behind --; run in /work, without a shell"),
      Argument.variadic({ min: 1 })
    ),
    file: Flag.String("file").pipe(
      Flag.withMetavar("PATH[=NAME]"),
      Flag.withDescription("Take a file along; it stands in /package/NAME"),
      Flag.atMost(Limits.packageEntries - 1)
    ),
    detach: Flag.Boolean("detach").pipe(
      Flag.withDescription("Do not wait: print the job's id and end"),
      Flag.withDefault(false),
      Flag.withoutNegation
    ),
    quiet: Flag.Boolean("quiet").pipe(
      Flag.withAlias("q"),
      Flag.withDescription("Nothing on stderr but the job's own and what is wrong"),
      Flag.withDefault(false),
      Flag.withoutNegation
    ),
    ...planFlags,
    ...orderFlags
  },
  Effect.fnUntraced(function* ({ command, detach, device, file, quiet, ...flags }) {
    const record = yield* deviceToWork(device)
    const draft = yield* planPackage({}, flags, command, command[0] as string)
    const files = yield* Effect.forEach(file, sourceFile)
    const keys = yield* unlocked
    const view = yield* Effect.scoped(
      Effect.gen(function* () {
        const target = join(yield* temporaryFolder, "run.postern")
        const recipients = [record.recipient, keys.profile.recipient]
        const built = yield* buildPackage({ source: { files, folders: [] }, draft, recipients, target })
        const plan = yield* planOrder(record, built, flags)
        yield* uploadPayload(target, built.payload)
        return yield* submitOrder(keys, plan)
      })
    )
    if (detach) {
      if (yield* Json)
        return yield* outJson({ job: view.id, device: view.device, counter: view.counter, state: view.state })
      return yield* Effect.flatMap(Screen, (screen) => screen.write("out", `${view.id}\n`))
    }
    if (!quiet && !(yield* Json))
      yield* say(`postern: job ${view.id}, number ${view.counter} for ${record.name}`)
    const { alarms, job } = yield* followToEnd(view.id, keys, quiet)
    if (alarms.length > 0 || job.receipt === null) return yield* silentExit(1)
    const { artifacts, exit_code, state } = job.receipt.document
    if (artifacts !== null && !quiet && !(yield* Json)) {
      yield* say(
        `postern: it returned ${counted(artifacts.entries, "entry", "entries")}. Fetch them: postern jobs results ${view.id}`
      )
    }
    if (state !== "succeeded") return yield* silentExit(exit_code === null || exit_code === 0 ? 1 : exit_code)
  }, withServer)
).pipe(
  Command.withDescription(
    "Run a command on a device and see its output: builds, signs, submits and follows. Ends with the command's own exit code, or 1 where it has none"
  ),
  Command.withExamples([
    { command: "postern run pi-cellar -- uname -a", description: "One command" },
    {
      command: "postern run pi-cellar --file stats.sh --timeout 1m -- sh /package/stats.sh",
      description: "With a file to bring along"
    },
    { command: "postern run pi-cellar --service -- cat /proc/loadavg", description: "Beside a job that runs" }
  ])
)

/**
 * Whoever starts jobs: gives each a slot, a uid and a control group, checks what it is lent, starts its chain and ends it.
 * Plain Node without Effect: in production the warden runs it; where there is none (tests, `doctor`), the client does.
 *
 * Output and artifacts do not pass through here: the client reads them from the job's file system itself.
 */
import { statSync } from "node:fs"
import type { Grants, JobLimits } from "../../schemas/Manifest.ts"
import { isSeccompArchitecture, seccompProgram } from "../Seccomp.ts"
import { Chain, type ChainEnd } from "./Chain.ts"
import { type ControlGroup, makeControlGroup, removeControlGroup } from "./ControlGroups.ts"
import { GrantRefused, type LentPath, lendGrants } from "./GrantedPaths.ts"
import type { JailSetting } from "./JailSetting.ts"
import { grantPlace, LaunchFolder, type LaunchPlan } from "./Launch.ts"
import { MemoryWatch } from "./MemoryWatch.ts"

/** A folder, and which one it is, whatever stands at its path later. */
export interface KnownFolder {
  readonly path: string
  /** Where the client has it open. */
  readonly descriptor: number
  readonly device: bigint
  readonly inode: bigint
}

/** What is to be started. */
export interface JobStart {
  readonly command: ReadonlyArray<string>
  readonly environment: Readonly<Record<string, string>>
  readonly package: KnownFolder | null
  readonly limits: JobLimits
  readonly grants: Grants
}

export interface JobEnd extends ChainEnd {
  readonly peakMemoryBytes: number | null
}

export type StartRefusal = "bad_request" | "grant_refused" | "no_free_slot" | "start_failed"

/** Who hears of a job. Either `refused` alone, or the others in this order; `ended` always, and last. */
export interface JobListener {
  readonly refused: (reason: StartRefusal, detail: string) => void
  /** Nothing of the job has run. `/proc/VIEWER/root` shows its file system at `LaunchFolder.scratch`, which the client may open. */
  readonly ready: (viewer: number) => void
  readonly begun: () => void
  readonly ended: (end: JobEnd) => void
}

export interface StartedJob {
  readonly release: () => void
  /** SIGTERM to the job. */
  readonly terminate: () => void
  /** SIGKILL to everything of it; its end comes as always. */
  readonly kill: () => void
}

/** Starts jobs, here or in another process. */
export interface JobHost {
  /** Whether jobs run under a uid that is not the client's. */
  readonly separateUid: boolean
  /** Whether control groups hold the job as a whole. */
  readonly controlGroups: boolean
  readonly start: (job: JobStart, listener: JobListener) => StartedJob
}

/** Compares what the chain has bound with what was meant, through the guard's eyes, before anything may run. */
const checkBound = (guard: number, start: JobStart, lent: ReadonlyArray<LentPath>): string | null => {
  const boundTo = (place: string, known: { readonly device: bigint; readonly inode: bigint }) => {
    const bound = statSync(`/proc/${guard}/root${place}`, { bigint: true })
    return bound.dev === known.device && bound.ino === known.inode
  }
  try {
    if (start.package !== null && !boundTo(LaunchFolder.package, start.package)) {
      return "the package's folder is not the one that was lent"
    }
    const moved = lent.findIndex((path, index) => !boundTo(grantPlace(index), path))
    return moved === -1 ? null : `${lent[moved]?.path} was changed while it was granted`
  } catch (error) {
    return `looking at what was bound: ${error instanceof Error ? error.message : String(error)}`
  }
}

/** A job from its slot to the end of its chain. */
class HostedJob implements StartedJob {
  private readonly setting: JailSetting
  private readonly slot: number
  private readonly request: JobStart
  private readonly listener: JobListener
  private chain: Chain | null = null
  private group: ControlGroup | null = null
  private watch: MemoryWatch | null = null
  private readonly lent: ReadonlyArray<LentPath>
  /** A kill that came before there was a chain to kill. */
  private unwanted = false
  private spoiled = ""

  constructor(
    setting: JailSetting,
    slot: number,
    request: JobStart,
    lent: ReadonlyArray<LentPath>,
    listener: JobListener
  ) {
    this.setting = setting
    this.slot = slot
    this.request = request
    this.lent = lent
    this.listener = listener
  }

  async begin(seccomp: Uint8Array): Promise<void> {
    const refused = (detail: string) => this.giveBack(() => this.listener.refused("start_failed", detail))
    try {
      this.group = await makeControlGroup(this.setting.controlGroups, this.request.limits)
      if (this.unwanted) return refused("it was killed before its start")
      this.chain = new Chain(this.plan(), seccomp, {
        ready: (viewer) => this.ready(viewer),
        begun: () => this.begun(),
        ended: (end) => this.ended(end)
      })
    } catch (error) {
      // Such as a command line that is longer than the system takes.
      refused(error instanceof Error ? error.message : String(error))
    }
  }

  private plan(): LaunchPlan {
    const { request, setting } = this
    return {
      ...setting,
      command: request.command,
      environment: { ...request.environment, ...deviceVariables(this.lent) },
      packageFolder: request.package?.path ?? null,
      limits: request.limits,
      uid: setting.uidBase === null ? null : setting.uidBase + this.slot,
      granted: this.lent.map(({ kind, path }) => ({ kind, path })),
      groups: [...new Set(this.lent.flatMap(({ group }) => (group === null ? [] : [group])))],
      cgroupFolder: this.group?.folder ?? null
    }
  }

  private ready(viewer: number): void {
    const wrong = checkBound(this.chain?.guard ?? 0, this.request, this.lent)
    if (wrong === null) return this.listener.ready(viewer)
    this.spoiled = wrong
    void this.chain?.kill()
  }

  private begun(): void {
    const { limits } = this.request
    if (this.group === null && this.chain !== null) {
      this.watch = new MemoryWatch(this.chain.guard, limits.memory_bytes + limits.disk_bytes)
    }
    this.listener.begun()
  }

  private ended(end: ChainEnd): void {
    this.watch?.stop()
    const peakMemoryBytes = this.watch?.peakBytes ?? this.group?.peakMemoryBytes() ?? null
    const message = this.spoiled === "" ? end.message : this.spoiled
    this.giveBack(() => this.listener.ended({ ...end, message, peakMemoryBytes }))
  }

  /** The slot is free only when the control group is gone, so that no two jobs ever share a uid or a group. */
  private giveBack(tell: () => void): void {
    const { group } = this
    const free = () => {
      this.setting.taken.delete(this.slot)
      tell()
    }
    if (group === null) free()
    else void removeControlGroup(group.folder).then(free)
  }

  release(): void {
    if (this.spoiled === "") this.chain?.release()
  }

  terminate(): void {
    this.chain?.terminate()
  }

  kill(): void {
    this.unwanted = true
    void this.chain?.kill()
  }
}

/** Where a job finds the devices it was granted: `POSTERN_DEVICE_<NAME>`, dashes as underscores. */
const deviceVariables = (lent: ReadonlyArray<LentPath>): Record<string, string> =>
  Object.fromEntries(
    lent.flatMap(({ name, path }) =>
      name === null ? [] : [[`POSTERN_DEVICE_${name.toUpperCase().replaceAll("-", "_")}`, path] as const]
    )
  )

const noJob: StartedJob = { release: () => undefined, terminate: () => undefined, kill: () => undefined }

/** The host of jobs in this very process. */
export const localJobHost = (setting: JailSetting): JobHost => ({
  separateUid: setting.uidBase !== null,
  controlGroups: setting.controlGroups !== null,
  start: (request, listener) => {
    const refuse = (reason: StartRefusal, detail: string): StartedJob => {
      listener.refused(reason, detail)
      return noJob
    }
    if (!isSeccompArchitecture(process.arch)) {
      return refuse("bad_request", `there is no seccomp filter for ${process.arch}`)
    }
    const slot = setting.slots.find((candidate) => !setting.taken.has(candidate))
    if (slot === undefined) {
      return refuse("no_free_slot", `All ${setting.slots.length} slots of the jail are taken.`)
    }
    let lent: ReadonlyArray<LentPath>
    try {
      lent = lendGrants(request.grants, setting)
    } catch (error) {
      if (error instanceof GrantRefused) return refuse("grant_refused", error.message)
      return refuse("start_failed", String(error))
    }
    setting.taken.add(slot)
    const job = new HostedJob(setting, slot, request, lent, listener)
    void job.begin(seccompProgram(process.arch))
    return job
  }
})

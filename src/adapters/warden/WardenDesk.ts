/**
 * The warden's end of the pipe to one client: reads what the client says, keeps its policy, and starts and ends its jobs.
 * No Effect here; see Warden.ts.
 */
import { readFileSync, readlinkSync, statSync } from "node:fs"
import type { Socket } from "node:net"
import { jailSetting } from "../jail/JailSetting.ts"
import { type JobHost, type KnownFolder, localJobHost, type StartedJob } from "../jail/JobHost.ts"
import { BadMessage } from "./Decoding.ts"
import { encodeFrame, FrameLimits, FrameReader } from "./Frames.ts"
import { decodeToWarden, type Policy, type ToClient, type ToWarden } from "./Messages.ts"

/** Signs of life that a client gives. */
export type Sign = "beat" | "alive" | "working"

export interface DeskOptions {
  /** The client's process. */
  readonly pid: number
  readonly pipe: Socket
  readonly heard: (sign: Sign) => void
  /** The client said what no client says, or let go of the pipe; it is to be killed. Told once. */
  readonly broken: (why: string) => void
}

/** How many jobs may run at once. */
const slots = 8
/** Until the client has said something else. */
const defaultHungAfterMs = 120_000
/** The client lets go of the pipe when it ends; if it lives on for so long, something is wrong with it. */
const partingMs = 5_000
/** Answers are some hundred bytes each, a few for each job; a client that reads none of thousands is no client. */
const unreadBytes = 1024 * 1024

type Asked<T extends ToWarden["type"]> = Extract<ToWarden, { readonly type: T }>

interface Running {
  readonly job: StartedJob
  readonly over: Promise<void>
}

const asRoot = process.getuid?.() === 0

/** Whether all of a process's uids are this one: whether it can never be anybody else again. */
const runsAs = (pid: number, uid: number): boolean => {
  try {
    const line = /^Uid:\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))
    return line?.slice(1).every((text) => Number(text) === uid) === true
  } catch {
    return false
  }
}

/** The desk of one client. */
export class WardenDesk {
  private readonly options: DeskOptions
  private readonly reader = new FrameReader(FrameLimits.toWarden)
  private readonly running = new Map<number, Running>()
  private policy: Policy | null = null
  private host: JobHost | null = null
  private shut = false
  /** What came while the first message was being answered. */
  private waiting: Array<unknown> = []
  private settling = false

  constructor(options: DeskOptions) {
    this.options = options
    const { pipe } = options
    pipe.on("data", (piece: Buffer) => this.take(piece))
    pipe.on("error", () => undefined)
    pipe.on("close", () => {
      if (!this.shut) setTimeout(() => this.break("it has let go of its warden"), partingMs).unref()
    })
  }

  get hungAfterMs(): number {
    return this.policy?.hung_after_ms ?? defaultHungAfterMs
  }

  get respawn(): boolean {
    // A client that did not come to say it: the next may.
    return this.policy?.respawn ?? true
  }

  /** Lets go of the pipe: a client that is alive ends by that. */
  letGo(): void {
    this.shut = true
    this.options.pipe.destroy()
  }

  /** Ends all jobs of the client, which is gone; resolves when nothing of them is left. */
  async close(): Promise<void> {
    this.letGo()
    const all = [...this.running.values()]
    for (const { job } of all) job.kill()
    await Promise.all(all.map(({ over }) => over))
  }

  private break(why: string): void {
    if (this.shut) return
    this.shut = true
    this.options.broken(why)
  }

  private take(piece: Buffer): void {
    if (this.shut) return
    try {
      for (const message of this.reader.take(piece)) this.waiting.push(message)
      this.drain()
    } catch (error) {
      this.break(error instanceof BadMessage ? error.message : String(error))
    }
  }

  /** Handles what waits, one after the other; nothing is looked at while the first message is being answered. */
  private drain(): void {
    while (!this.settling && !this.shut) {
      const next = this.waiting.shift()
      if (next === undefined) return
      this.handle(decodeToWarden(next, "a message"))
    }
  }

  private say(message: ToClient): void {
    const { pipe } = this.options
    if (this.shut || !pipe.writable) return
    if (pipe.writableLength > unreadBytes) return this.break("it does not read what it is told")
    pipe.write(encodeFrame(message, FrameLimits.toClient))
  }

  private handle(message: ToWarden): void {
    if (message.type === "hello") return this.greet(message.policy)
    if (this.policy === null) throw new BadMessage("it does not begin with its policy")
    switch (message.type) {
      case "beat":
      case "alive":
      case "working":
        return this.options.heard(message.type)
      case "start":
        return this.start(message)
      // A job that has ended meanwhile hears no more.
      case "release":
      case "terminate":
      case "kill":
        return this.running.get(message.run)?.job[message.type]()
    }
  }

  /** Takes the policy, once in a client's life. */
  private greet(policy: Policy): void {
    if (this.policy !== null) throw new BadMessage("it names a policy twice")
    if (asRoot !== (policy.client_uid !== null) || asRoot !== (policy.uid_base !== null)) {
      throw new BadMessage("its policy is for another user than the warden's")
    }
    const { client_uid, uid_base } = policy
    if (client_uid !== null && uid_base !== null && client_uid >= uid_base && client_uid < uid_base + slots) {
      throw new BadMessage("the client's uid is one of the jobs'")
    }
    this.policy = policy
    this.settling = true
    const options = {
      bwrap: policy.bwrap,
      ...(uid_base === null ? {} : { uidBase: uid_base }),
      slots,
      viewerUid: client_uid,
      devices: policy.devices,
      readOnly: policy.read_only,
      privatePaths: policy.private_paths,
      ...(process.env["POSTERN_CONTROL_GROUP"] === "delegated" ? { delegatedControlGroup: true } : {})
    }
    void jailSetting(options).then(
      (setting) => this.welcome(localJobHost(setting)),
      (error) => this.break(`the machine cannot be looked at: ${String(error)}`)
    )
  }

  private welcome(host: JobHost): void {
    this.host = host
    const isolation = host.separateUid ? "separate-uid" : "same-uid"
    this.say({ type: "welcome", isolation, control_groups: host.controlGroups })
    this.settling = false
    this.take(Buffer.alloc(0))
  }

  private start(asked: Asked<"start">): void {
    const { run } = asked
    if (this.running.has(run)) throw new BadMessage(`run ${run} is named twice`)
    const uid = this.policy?.client_uid ?? null
    if (uid !== null && !runsAs(this.options.pid, uid)) {
      const detail = "the client still has root's rights; jobs are not started for it"
      return this.say({ type: "refused", run, reason: "start_failed", detail })
    }
    let folder: KnownFolder | null
    try {
      folder = asked.package === null ? null : this.openFolder(asked.package)
    } catch (error) {
      const detail = error instanceof Error ? error.message : String(error)
      return this.say({ type: "refused", run, reason: "bad_request", detail })
    }
    if (this.host !== null) this.begin(this.host, asked, folder)
  }

  private begin(host: JobHost, asked: Asked<"start">, folder: KnownFolder | null): void {
    const { command, environment, grants, limits, run } = asked
    let settle = () => undefined as void
    const over = new Promise<void>((resolve) => {
      settle = resolve
    })
    let refused = false
    const end = (message: ToClient) => {
      refused = true
      this.running.delete(run)
      this.say(message)
      settle()
    }
    const job = host.start(
      { command, environment, package: folder, limits, grants },
      {
        ready: (viewer) => this.say({ type: "ready", run, viewer }),
        begun: () => this.say({ type: "begun", run }),
        refused: (reason, detail) => end({ type: "refused", run, reason, detail: detail.slice(0, 2_000) }),
        ended: ({ clean, cpuMs, exitCode, message, peakMemoryBytes }) =>
          end({
            type: "ended",
            run,
            exit_code: exitCode,
            cpu_ms: cpuMs,
            peak_memory_bytes: peakMemoryBytes,
            message: message.slice(0, 2_000),
            clean
          })
      }
    )
    if (!refused) this.running.set(run, { job, over })
  }

  /**
   * What the client lends, it must have open itself: so its own rights decide, not the warden's. The numbers of what it has
   * open are compared with what the chain has bound, whatever stands at that path by then.
   */
  private openFolder(descriptor: number): KnownFolder {
    const seen = `/proc/${this.options.pid}/fd/${descriptor}`
    const path = readlinkSync(seen)
    const found = statSync(seen, { bigint: true })
    if (!path.startsWith("/") || !found.isDirectory()) throw new Error("the package is no folder")
    return { path, descriptor, device: found.dev, inode: found.ino }
  }
}

/**
 * The client's end of the pipe to its warden: tells it the policy and signs of life, and has it start jobs. When the pipe
 * ends, the warden is dead, and so is this process at once: nobody would respawn it, and nobody could kill its jobs.
 */
import { Socket } from "node:net"
import { Effect, Layer, Schema } from "effect"
import { ServiceManager } from "../../ports/ServiceManager.ts"
import type { JobHost, JobListener, JobStart, StartedJob } from "../jail/JobHost.ts"
import { encodeFrame, FrameLimits, FrameReader } from "./Frames.ts"
import {
  decodeToClient,
  type Policy,
  type ToClient,
  type ToWarden,
  wardenDescriptor,
  wardenVariable
} from "./Messages.ts"
import { beatMs } from "./Respawn.ts"

/** The warden does not answer as one. */
export class WardenSilent extends Schema.TaggedError<WardenSilent>()("WardenSilent", {
  detail: Schema.String
}) {
  override get message(): string {
    return `the warden, which started this client, does not answer: ${this.detail}`
  }
}

/** Whether this process is a client that a warden started. */
export const hasWarden = (environment: NodeJS.ProcessEnv): boolean =>
  environment[wardenVariable] === String(wardenDescriptor)

const answerMs = 30_000
/** More than any job's messages; a warden that reads nothing at all is dead or stopped, and beats are worth nothing to it. */
const unreadBytes = 64 * 1024

interface Following {
  readonly listener: JobListener
}

/** A connection to the warden, for the rest of this process's life. */
export class WardenLink {
  private readonly socket: Socket
  private readonly reader = new FrameReader(FrameLimits.toClient)
  private readonly jobs = new Map<number, Following>()
  private nextRun = 1
  private welcome: ((message: Extract<ToClient, { readonly type: "welcome" }>) => void) | null = null

  private constructor() {
    this.socket = new Socket({ fd: wardenDescriptor, readable: true, writable: true })
    this.socket.on("data", (piece: Buffer) => {
      for (const message of this.reader.take(piece)) this.hear(decodeToClient(message, "a message"))
    })
    const gone = () => {
      process.stderr.write("postern: the warden is gone, so the client ends at once\n")
      process.kill(process.pid, "SIGKILL")
    }
    for (const event of ["end", "close", "error"] as const) this.socket.on(event, gone)
  }

  /** Says the policy and waits for the warden's answer. To be called once in a process's life, before any drop of rights. */
  static readonly open = (
    policy: Policy
  ): Effect.Effect<{ readonly link: WardenLink; readonly host: JobHost }, WardenSilent> =>
    Effect.callback<{ readonly link: WardenLink; readonly host: JobHost }>((resume) => {
      const link = new WardenLink()
      link.welcome = ({ control_groups, isolation }) => {
        const host: JobHost = {
          separateUid: isolation === "separate-uid",
          controlGroups: control_groups,
          start: (job, listener) => link.start(job, listener)
        }
        resume(Effect.succeed({ link, host }))
      }
      link.say({ type: "hello", policy })
      // It keeps on for as long as the event loop turns, which is all it says; it keeps nothing else alive.
      setInterval(() => {
        if (link.socket.writableLength < unreadBytes) link.say({ type: "beat" })
      }, beatMs).unref()
    }).pipe(
      Effect.timeoutOrElse({
        duration: answerMs,
        orElse: () => Effect.fail(new WardenSilent({ detail: `no welcome within ${answerMs} ms` }))
      })
    )

  private say(message: ToWarden): void {
    this.socket.write(encodeFrame(message, FrameLimits.toWarden))
  }

  private hear(message: ToClient): void {
    if (message.type === "welcome") return this.welcome?.(message)
    const job = this.jobs.get(message.run)
    if (job === undefined) return
    switch (message.type) {
      case "ready":
        return job.listener.ready(message.viewer)
      case "begun":
        return job.listener.begun()
      case "refused":
        this.jobs.delete(message.run)
        return job.listener.refused(message.reason, message.detail)
      case "ended":
        this.jobs.delete(message.run)
        return job.listener.ended({
          exitCode: message.exit_code,
          cpuMs: message.cpu_ms,
          peakMemoryBytes: message.peak_memory_bytes,
          message: message.message,
          clean: message.clean
        })
    }
  }

  private start(job: JobStart, listener: JobListener): StartedJob {
    const run = this.nextRun++
    this.jobs.set(run, { listener })
    const { command, environment, grants, limits } = job
    const tell = (type: "release" | "terminate" | "kill") => () => {
      if (this.jobs.has(run)) this.say({ type, run })
    }
    try {
      const folder = job.package?.descriptor ?? null
      this.say({ type: "start", run, command, environment, package: folder, limits, grants })
    } catch (error) {
      this.jobs.delete(run)
      listener.refused("bad_request", error instanceof Error ? error.message : String(error))
    }
    return { release: tell("release"), terminate: tell("terminate"), kill: tell("kill") }
  }

  /** What systemd is told, through the warden. The warden itself says when it stops. */
  readonly serviceManager: Layer.Layer<ServiceManager> = Layer.sync(ServiceManager, () => ({
    ready: Effect.sync(() => this.say({ type: "working" })),
    alive: Effect.sync(() => this.say({ type: "alive" })),
    stopping: Effect.void
  }))
}

/**
 * The warden: the small parent process of a client. It has no keys and no network; it starts the client, and again when
 * it dies or hangs, it alone starts jobs, and it tells systemd of the client's signs of life.
 *
 * It is plain Node code and not an actor, because it must survive what the actors' runtime cannot: an event loop that
 * stands still, memory that is used up, a fault in that runtime itself. So it loads none of it, which also keeps it small.
 *
 * As root it trusts the client with nothing. The first message of a client's life says what the configuration allows; the
 * client says it before it gives up root and before it hears a word from outside. Whatever it asks later is decoded
 * strictly and held against that.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { accessSync, constants } from "node:fs"
import { wardenDescriptor, wardenVariable } from "./Messages.ts"
import { Notifier } from "./Notify.ts"
import { afterEnd, afterGap, hangs, lookMs, type Signs } from "./Respawn.ts"
import { WardenDesk } from "./WardenDesk.ts"

export interface WardenOptions {
  /** Node's own options, the program's file, and its arguments. */
  readonly command: ReadonlyArray<string>
  readonly environment: NodeJS.ProcessEnv
}

/** What is left of the five seconds that a stop may take, when the client has not ended by itself. */
const stopMs = 4_500

const quoted = (text: string): string => JSON.stringify(text)

/** A line in the manner of the program's log. */
const log = (level: "INFO" | "WARN" | "ERROR", message: string): void => {
  process.stderr.write(
    `timestamp=${new Date().toISOString()} level=${level} warden=${process.pid} message=${quoted(message)}\n`
  )
}

const setpriv = ["/usr/bin/setpriv", "/bin/setpriv"].find((path) => {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
})

/**
 * Without new privileges, whatever set-uid program it may find; and killed with its warden even where its event loop stands
 * still, until it gives up root, which clears that (then the end of the pipe ends it). Without setpriv it runs all the same.
 */
const clientCommand = (command: ReadonlyArray<string>): ReadonlyArray<string> =>
  setpriv === undefined ? command : [setpriv, "--no-new-privs", "--pdeathsig", "KILL", "--", ...command]

const clientEnvironment = (environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv => {
  const { NOTIFY_SOCKET: _socket, WATCHDOG_PID: _pid, WATCHDOG_USEC: _usec, ...rest } = environment
  return { ...rest, [wardenVariable]: String(wardenDescriptor) }
}

/** One client from its start to its end. */
class Life {
  readonly child: ChildProcess
  readonly desk: WardenDesk
  readonly startedAt = performance.now()
  /** Whether the client ever said that it does its work. */
  private signs: Signs
  private killed = false

  constructor(
    options: WardenOptions,
    notifier: Notifier,
    ended: (life: Life, code: number | null, signal: NodeJS.Signals | null) => void
  ) {
    this.signs = { startedAt: this.startedAt, beatAt: null, aliveAt: null, lookedAt: this.startedAt }
    const [file, ...args] = clientCommand(options.command) as [string, ...Array<string>]
    this.child = spawn(file, args, {
      stdio: ["inherit", "inherit", "inherit", "pipe"],
      env: clientEnvironment(options.environment)
    })
    this.desk = new WardenDesk({
      pid: this.child.pid ?? 0,
      pipe: this.child.stdio[wardenDescriptor] as never,
      heard: (sign) => {
        const now = performance.now()
        if (sign === "beat") this.signs = { ...this.signs, beatAt: now }
        if (sign === "alive") {
          this.signs = { ...this.signs, beatAt: now, aliveAt: now }
          notifier.alive()
        }
        if (sign === "working") notifier.tell("READY=1")
      },
      broken: (why) => this.kill(`it does not keep to the protocol: ${why}`)
    })
    let told = false
    const tell = (code: number | null, signal: NodeJS.Signals | null) => {
      if (told) return
      told = true
      void this.desk.close().then(() => ended(this, code, signal))
    }
    this.child.on("error", (error) => {
      if (this.child.pid !== undefined) return
      log("ERROR", `the client could not be started: ${error.message}`)
      tell(1, null)
    })
    this.child.once("exit", tell)
  }

  get livedMs(): number {
    return performance.now() - this.startedAt
  }

  kill(why: string): void {
    if (this.killed) return
    this.killed = true
    log("ERROR", `the client is killed: ${why}`)
    // Where that is not allowed (no CAP_KILL), the end of its pipe still ends it.
    if (!this.child.kill("SIGKILL")) this.desk.letGo()
  }

  look(): void {
    const now = performance.now()
    const why = hangs(this.signs, now, this.desk.hungAfterMs)
    this.signs = afterGap(this.signs, now)
    if (why !== null) this.kill(why)
  }
}

/** Runs the warden until its client is done; ends this process with the client's exit code. */
export const runWarden = (options: WardenOptions): void => {
  // Whoever read the log may be gone; that is no reason to die.
  process.stderr.on("error", () => undefined)
  const notifier = new Notifier(options.environment, (problem) =>
    log("WARN", `systemd hears nothing of this program: ${problem}`)
  )
  let life: Life | null = null
  let crashes = 0
  let told = false
  let pause: NodeJS.Timeout | null = null

  const begin = () => {
    pause = null
    life = new Life(options, notifier, ended)
  }
  const ended = (from: Life, code: number | null, signal: NodeJS.Signals | null) => {
    life = null
    const verdict = afterEnd({ code, signal, livedMs: from.livedMs }, crashes, told || !from.desk.respawn)
    if (verdict._tag === "Exit") process.exit(verdict.code)
    crashes = verdict.crashes
    const how = signal === null ? `with exit code ${code}` : `by ${signal}`
    log("WARN", `the client ended ${how} and is started again in ${verdict.delayMs} ms`)
    pause = setTimeout(begin, verdict.delayMs)
  }
  const stop = (signal: NodeJS.Signals) => {
    if (told) return
    told = true
    notifier.tell("STOPPING=1")
    if (life === null) {
      if (pause !== null) clearTimeout(pause)
      process.exit(0)
    }
    life.child.kill(signal)
    setTimeout(() => life?.kill(`it did not stop within ${stopMs} ms`), stopMs)
  }
  process.on("SIGTERM", () => stop("SIGTERM"))
  process.on("SIGINT", () => stop("SIGINT"))
  process.on("SIGHUP", () => stop("SIGTERM"))
  setInterval(() => life?.look(), lookMs)
  begin()
}

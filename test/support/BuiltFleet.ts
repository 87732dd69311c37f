/**
 * A whole fleet of the built programs in one temporary folder: server, devices and operator as real processes on
 * loopback. Everything is ended and removed by `close`, however the test ended.
 */
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { type Ended, freePort, Program, runToEnd, waitUntil } from "./Program.ts"

const dist = join(import.meta.dirname, "../../dist")

/** A device may have to find its way through Tor first. */
const patienceMs = 120_000

/** Environment of every process: nothing of the person who runs the tests. */
const environment = (home: string, extra: Readonly<Record<string, string>> = {}): Record<string, string> => ({
  PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
  HOME: home,
  LANG: "C.UTF-8",
  ...extra
})

/** How a fleet's programs are started; the defaults are those of dist/ under this Node. */
export interface FleetOptions {
  readonly node?: string
  readonly programs?: string
  /** Lines of the server's configuration. */
  readonly serverSettings?: ReadonlyArray<string>
}

/** How a device is started. */
export interface DeviceOptions {
  /** The address it is told in its configuration; null: none but the invitation's. Default the server's on loopback. */
  readonly server?: string | null
  /** Further lines of its configuration. */
  readonly settings?: ReadonlyArray<string>
  /** A command that starts it, such as `setpriv …`. */
  readonly through?: ReadonlyArray<string>
  /** The owner of its state folder, where it is not started as the one who runs the tests. */
  readonly uid?: number
}

/** A job as the CLI shows it. */
export interface JobDocument {
  readonly job: string
  readonly state: string
  readonly verified: boolean
  readonly receipt: Readonly<Record<string, unknown>> | null
  readonly alarms: ReadonlyArray<string>
}

/** A device of the fleet: its program (which is the warden), and where it keeps its state. */
export interface BuiltDevice {
  readonly name: string
  readonly state: string
  readonly program: Program
  /** The process id of the client proper, which the warden started; undefined while there is none. */
  readonly clientPid: () => number | undefined
}

/** Who holds a state folder, as the holder wrote it down; undefined while nobody lives who does, or it just writes. */
const holderOf = (state: string): number | undefined => {
  try {
    const text = readFileSync(join(state, "lock.pid"), "utf8")
    // No number at all would be taken for 0, which is this process's own group.
    if (!/^\d+\n$/.test(text)) return undefined
    const pid = Number(text)
    process.kill(pid, 0)
    return pid
  } catch {
    return undefined
  }
}

interface RunOptions {
  readonly env?: Readonly<Record<string, string>>
  readonly input?: string
  readonly timeoutMs?: number
  readonly onOutput?: (stdout: string) => void
}

export class BuiltFleet {
  readonly folder: string
  readonly port: number
  server: Program
  private readonly node: string
  private readonly programs: string
  private readonly serverSettings: ReadonlyArray<string>
  private readonly started: Array<Program> = []
  private deviceCount = 0
  private serverName = "server"

  private constructor(folder: string, port: number, options: FleetOptions) {
    this.folder = folder
    this.port = port
    this.node = options.node ?? process.execPath
    this.programs = options.programs ?? dist
    this.serverSettings = options.serverSettings ?? []
    this.server = this.makeServer()
  }

  private makeServer(): Program {
    const args = ["--state", this.serverFolder, "--port", `${this.port}`]
    if (this.serverSettings.length === 0) return this.program("server", "server", args)
    const config = join(this.folder, "server.toml")
    writeFileSync(config, [...this.serverSettings, ""].join("\n"), { mode: 0o600 })
    return this.program("server", "server", [...args, "--config", config])
  }

  /** A fleet with nothing running yet. */
  static async create(options: FleetOptions = {}): Promise<BuiltFleet> {
    const folder = mkdtempSync(join(tmpdir(), "postern-fleet-"))
    // A device that is started as root becomes another user, who must reach its state in here.
    chmodSync(folder, 0o711)
    return new BuiltFleet(folder, await freePort(), options)
  }

  /** A fleet whose server runs and whose operator has keys (without passphrase) and is logged in. */
  static async withServer(options: FleetOptions = {}): Promise<BuiltFleet> {
    const fleet = await BuiltFleet.create(options)
    try {
      await fleet.startServer()
      await fleet.makeOperator()
      return fleet
    } catch (error) {
      await fleet.close()
      throw error
    }
  }

  get address(): string {
    return `http://127.0.0.1:${this.port}`
  }

  /** Where the built programs are. */
  get programsFolder(): string {
    return this.programs
  }

  get serverFolder(): string {
    return join(this.folder, this.serverName)
  }

  /** From now on the server is another one, with an empty state folder on the same port. */
  moveServer(name: string): void {
    this.serverName = name
    this.server = this.makeServer()
  }

  get operatorFolder(): string {
    return join(this.folder, "operator")
  }

  private program(
    name: string,
    file: string,
    args: ReadonlyArray<string>,
    env: Readonly<Record<string, string>> = {},
    through: ReadonlyArray<string> = []
  ): Program {
    const command = [...through, this.node, join(this.programs, `${file}.js`), ...args]
    const made = new Program(name, command, environment(this.folder, env), join(this.folder, `${name}.log`))
    this.started.push(made)
    return made
  }

  /** Starts the server and waits until it answers. */
  async startServer(): Promise<void> {
    this.server.start()
    const answers = async () => {
      if (!this.server.isRunning()) throw new Error(`the server ended at once:\n${this.server.log()}`)
      const answer = await fetch(`${this.address}/api/device/v1/identity`).catch(() => undefined)
      return answer?.ok === true
    }
    await waitUntil("the server's answer", answers, 60_000, () => this.server.log())
  }

  /** Runs one of the programs to its end. */
  run(program: string, args: ReadonlyArray<string>, options: RunOptions = {}): Promise<Ended> {
    const { env = {}, timeoutMs = patienceMs, ...rest } = options
    const all = environment(this.folder, { POSTERN_HOME: this.operatorFolder, ...env })
    const command = [this.node, join(this.programs, `${program}.js`), ...args]
    return runToEnd(command, { ...rest, timeoutMs, cwd: this.folder, environment: all })
  }

  /** `postern ARGS`. */
  postern(args: ReadonlyArray<string>, options: RunOptions = {}): Promise<Ended> {
    return this.run("cli", args, options)
  }

  /** `postern ARGS --json`, which must succeed; the document it prints. */
  async ask<A = Readonly<Record<string, unknown>>>(
    args: ReadonlyArray<string>,
    options: RunOptions = {}
  ): Promise<A> {
    const end = args.includes("--") ? args.indexOf("--") : args.length
    const all = [...args.slice(0, end), "--json", ...args.slice(end)]
    const ended = await this.postern(all, options)
    if (ended.code === 0) return JSON.parse(ended.stdout) as A
    throw new Error(`postern ${all.join(" ")} ended with ${ended.code}\n${ended.stdout}${ended.stderr}`)
  }

  /** A fresh API token of the server, in a file. */
  async token(name: string, role: "viewer" | "operator" | "admin"): Promise<string> {
    const made = await this.run("server", [
      "token",
      "create",
      name,
      "--role",
      role,
      "--state",
      this.serverFolder
    ])
    if (made.code !== 0) throw new Error(`no token: ${made.stderr}`)
    const path = join(this.folder, `token-${name}`)
    writeFileSync(path, made.stdout, { mode: 0o600 })
    return path
  }

  /** The server's id, as it tells its owner. */
  async serverId(): Promise<string> {
    const told = await this.run("server", ["identity", "--state", this.serverFolder])
    return JSON.parse(told.stdout).server
  }

  /** Makes the operator's keys without a passphrase, publishes the root and logs in. */
  async makeOperator(): Promise<void> {
    const token = await this.token("operator", "admin")
    const server = ["--server", this.address, "--server-id", await this.serverId()]
    const made = await this.ask(["keys", "init", ...server, "--no-passphrase", "--token-file", token])
    if (made["published"] !== true) throw new Error("the root was not published")
  }

  /** A device that was not started yet. `invitation` is what `postern invite` gave, if anything. */
  device(name: string, invitation: string | null, options: DeviceOptions = {}): BuiltDevice {
    const label = `device-${++this.deviceCount}`
    const state = join(this.folder, label)
    const config = join(this.folder, `${label}.toml`)
    const { server = this.address } = options
    const address = server === null ? [] : [`server = "${server}"`]
    const settings = [...address, `name = "${name}"`, "sleep_minimum_ms = 200"]
    writeFileSync(config, [...settings, ...(options.settings ?? []), ""].join("\n"))
    if (options.uid !== undefined) {
      mkdirSync(state, { mode: 0o700 })
      chownSync(state, options.uid, options.uid)
    }
    const invited: Record<string, string> = invitation === null ? {} : { POSTERN_INVITATION: invitation }
    const args = ["--state", state, "--config", config]
    const program = this.program(label, "client", args, invited, options.through)
    return { name, state, program, clientPid: () => holderOf(state) }
  }

  /** A device that was invited, runs and is accepted. */
  async acceptedDevice(name: string, options: DeviceOptions = {}): Promise<BuiltDevice> {
    const { invitation } = await this.ask<{ invitation: string }>(["invite", "--name", name])
    const device = this.device(name, invitation, options)
    device.program.start()
    await this.ask(["devices", "accept", await this.waiting(device)])
    await this.takesWork(device)
    return device
  }

  /** Waits until a device's request is at the server; gives its id. */
  waiting(device: BuiltDevice): Promise<string> {
    const look = async () => {
      type Listed = { readonly devices: ReadonlyArray<{ readonly device: string; readonly status: string }> }
      const own = /runs as (dev_[a-z2-7]{52})/.exec(device.program.log())?.[1]
      if (own === undefined) return undefined
      const { devices } = await this.ask<Listed>(["devices", "list"])
      return devices.find(({ device: id, status }) => id === own && status === "pending")?.device
    }
    const explain = () => device.program.log().slice(-3000)
    return waitUntil(`the enrolment of ${device.name}`, look, patienceMs, explain)
  }

  /** Waits until the server knows that a device takes work. */
  async takesWork(device: BuiltDevice): Promise<void> {
    const look = async () => {
      type Shown = { readonly blocked: string | null; readonly last_seen_at_ms: number | null }
      const shown = await this.ask<Shown>(["devices", "show", device.name])
      return shown.blocked === null && shown.last_seen_at_ms !== null
    }
    await waitUntil(`${device.name} to take work`, look, patienceMs, () => device.program.log().slice(-3000))
  }

  /** Waits until a job is in one of the states; gives it as `postern jobs show --json` does. */
  job(id: string, states: ReadonlyArray<string>, timeoutMs = 120_000): Promise<JobDocument> {
    return this.jobWhen(
      `the job to be ${states.join(" or ")}`,
      id,
      (job) => states.includes(job.state),
      timeoutMs
    )
  }

  /** Waits until a job's receipt is here and verified. */
  finished(id: string, timeoutMs = 120_000): Promise<JobDocument> {
    return this.jobWhen("the job's verified receipt", id, (job) => job.verified, timeoutMs)
  }

  private jobWhen(
    what: string,
    id: string,
    holds: (job: JobDocument) => boolean,
    timeoutMs: number
  ): Promise<JobDocument> {
    let last: JobDocument | undefined
    const look = async () => {
      last = await this.ask<JobDocument>(["jobs", "show", id])
      return holds(last) ? last : undefined
    }
    return waitUntil(what, look, timeoutMs, () => JSON.stringify(last))
  }

  /** Ends and removes everything. */
  async close(): Promise<void> {
    const alive = this.started.filter((program) => program.isRunning())
    for (const program of alive) program.signalGroup("SIGTERM")
    await Promise.all(
      alive.map(async (program) => {
        await program.ended(8_000).catch(() => undefined)
        // Until the last of what it started is gone, that may still write into the folder.
        await program.crash().catch(() => undefined)
      })
    )
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 })
  }
}

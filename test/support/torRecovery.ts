/**
 * A server and a device of the built programs that meet through a private Tor network alone, to take things away from
 * them and see when they meet again. The device stands in a network namespace of its own, with one cable to the relays.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { chmodSync, globSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect } from "effect"
import { askControl } from "../../src/adapters/ControlSocket.ts"
import { connectControl } from "../../src/adapters/tor/TorControl.ts"
import { torPaths } from "../../src/adapters/tor/Torrc.ts"
import type { MainLoopStatus } from "../../src/schemas/protocols/MainLoop.ts"
import { type BuiltDevice, BuiltFleet, type FleetOptions } from "./BuiltFleet.ts"
import { waitUntil } from "./Program.ts"
import { onionSettings, ownTorNetwork, torSettings } from "./torNetwork.ts"

const patienceMs = 300_000
const relayAddress = "10.77.0.1"
const deviceAddress = "10.77.0.2"

/** A namespace that lives as long as this process holds its input open. */
class Namespace {
  private readonly holder: ChildProcess
  private pid = 0

  private constructor() {
    this.holder = spawn(
      "unshare",
      [
        "--net",
        "--mount",
        "sh",
        "-c",
        "mount -t sysfs sysfs /sys && ip link set lo up && echo ready && exec cat"
      ],
      { stdio: ["pipe", "pipe", "inherit"] }
    )
  }

  static async make(): Promise<Namespace> {
    const made = new Namespace()
    let said = ""
    made.holder.stdout?.on("data", (text) => {
      said += text
    })
    await waitUntil("a namespace", () => said.includes("ready"))
    made.pid = made.holder.pid as number
    return made
  }

  /** What stands before a command that is to run in it. */
  get through(): ReadonlyArray<string> {
    return ["nsenter", "-t", `${this.pid}`, "-n", "-m"]
  }

  run(script: string): void {
    const [file = "", ...args] = [...this.through, "sh", "-c", script]
    const ended = spawnSync(file, args, { encoding: "utf8" })
    if (ended.status !== 0) throw new Error(`${script}: ${ended.stderr}`)
  }

  cable(to: Namespace): void {
    this.run(`ip link add cable type veth peer name eth0 netns ${to.pid}`)
  }

  async end(): Promise<void> {
    const ended = new Promise((resolve) => this.holder.once("exit", resolve))
    this.holder.stdin?.end()
    await ended
  }
}

const libfaketime = (): string => {
  const [found] = globSync("/usr/lib/*/faketime/libfaketimeMT.so.1")
  if (found === undefined) throw new Error("libfaketime is not installed (package faketime)")
  return found
}

/** See the module. */
export class TorWorld {
  readonly fleet: BuiltFleet
  readonly device: BuiltDevice
  private readonly clockFile: string
  private readonly ends: ReadonlyArray<() => Promise<void>>
  private readonly apart: Namespace

  private constructor(
    fleet: BuiltFleet,
    device: BuiltDevice,
    clockFile: string,
    apart: Namespace,
    ends: ReadonlyArray<() => Promise<void>>
  ) {
    this.fleet = fleet
    this.device = device
    this.clockFile = clockFile
    this.apart = apart
    this.ends = ends
  }

  static async open(options: FleetOptions = {}): Promise<TorWorld> {
    const ends: Array<() => Promise<void>> = []
    try {
      return await TorWorld.build(ends, options)
    } catch (error) {
      for (const end of ends.toReversed()) await end()
      throw error
    }
  }

  private static async build(ends: Array<() => Promise<void>>, options: FleetOptions): Promise<TorWorld> {
    const [relays, apart] = [await Namespace.make(), await Namespace.make()]
    ends.push(
      () => relays.end(),
      () => apart.end()
    )
    relays.cable(apart)
    relays.run(`ip address add ${relayAddress}/24 dev cable && ip link set cable up`)
    apart.run(`ip address add ${deviceAddress}/24 dev eth0`)
    plug(apart)
    const { network, stop } = await ownTorNetwork({ addresses: [relayAddress], via: relays.through })
    ends.push(stop)
    // The client, which is not root for long, must be able to pass.
    const folder = mkdtempSync(join(tmpdir(), "postern-recovery-"))
    chmodSync(folder, 0o711)
    ends.push(async () => rmSync(folder, { recursive: true, force: true }))
    const serverTor = script(folder, "server-tor", `exec ${relays.through.join(" ")} tor "$@"`)
    const clockFile = join(folder, "clock")
    writeFileSync(clockFile, "+0\n", { mode: 0o644 })
    const faked = [
      `LD_PRELOAD=${libfaketime()} FAKETIME_TIMESTAMP_FILE=${clockFile} FAKETIME_NO_CACHE=1`,
      // libfaketime's own remedy for monotonic clocks breaks tor's condition variables.
      "FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_FORCE_MONOTONIC_FIX=0"
    ].join(" ")
    const deviceTor = script(folder, "device-tor", `exec env ${faked} tor "$@"`)
    const fleet = await BuiltFleet.create({
      serverSettings: [...onionSettings(network), `command = "${serverTor}"`],
      ...options
    })
    ends.push(() => fleet.close())
    await fleet.startServer()
    await fleet.makeOperator()
    const device = await fleet.acceptedDevice("far-pi", {
      server: null,
      through: apart.through,
      settings: ["long_poll_ms = 1000", ...torSettings(network), `command = "${deviceTor}"`]
    })
    return new TorWorld(fleet, device, clockFile, apart, ends)
  }

  /** How the device's main loop is; null while its program does not answer. */
  status(): Promise<MainLoopStatus | null> {
    const asked = askControl({ stateFolder: this.device.state, request: "status", timeoutMs: 2_000 })
    return Effect.runPromise(
      Effect.orElseSucceed(
        Effect.map(asked, (found) => found as MainLoopStatus),
        () => null
      )
    )
  }

  /** The conditions that the device tells of itself now, by code with their details. */
  async conditions(): Promise<ReadonlyMap<string, string>> {
    const status = await this.status()
    return new Map((status?.degraded ?? []).map(({ code, detail }) => [code, detail]))
  }

  /** Waits until the device has had an answer to two polls more; how long that took. */
  async meets(): Promise<number> {
    const beganMs = performance.now()
    let first: number | undefined
    let last: MainLoopStatus | null = null
    const look = async () => {
      last = await this.status()
      if (last === null) return false
      // A program that was started anew counts from nothing.
      if (first === undefined || last.polls < first) first = last.polls
      return last.polls >= first + 2 && last.failures === 0
    }
    const explain = () => `${JSON.stringify(last)}\n${this.device.program.log().slice(-6_000)}`
    await waitUntil("an answered poll", look, patienceMs, explain)
    return performance.now() - beganMs
  }

  get deviceTorPid(): number {
    return Number(readFileSync(torPaths(join(this.device.state, "tor")).pid, "utf8"))
  }

  get serverTorPid(): number {
    return Number(readFileSync(torPaths(join(this.fleet.serverFolder, "onion", "tor")).pid, "utf8"))
  }

  /** Lets the device's tor take new circuits for whatever comes next. */
  async renewCircuits(): Promise<void> {
    const endpoint = { path: torPaths(join(this.device.state, "tor")).control }
    const renew = Effect.flatMap(connectControl({ endpoint }), (control) => control.send("SIGNAL NEWNYM"))
    await Effect.runPromise(Effect.scoped(renew))
  }

  /** What the device's tor takes for the time, as an offset: `-10d`, `+0`. */
  setClock(offset: string): void {
    // tor reads it whenever it wants to know the time, and ends where it is empty.
    writeFileSync(`${this.clockFile}.new`, `${offset}\n`, { mode: 0o644 })
    renameSync(`${this.clockFile}.new`, this.clockFile)
  }

  unplug(): void {
    this.apart.run("ip link set eth0 down")
  }

  plugIn(): void {
    plug(this.apart)
  }

  async close(): Promise<void> {
    for (const end of this.ends.toReversed()) await end()
  }
}

const plug = (machine: Namespace): void =>
  machine.run(`ip link set eth0 up && ip route replace default via ${relayAddress}`)

const script = (folder: string, name: string, line: string): string => {
  const path = join(folder, name)
  writeFileSync(path, `#!/bin/sh\n${line}\n`)
  chmodSync(path, 0o755)
  return path
}

/**
 * Two network namespaces as a device and the world beyond its gateway, in a mount namespace of their own: all of it is gone
 * when its shell is.
 *
 *     device 10.9.0.2 ── v1 ║ v0 ── 10.9.0.1, the gateway and name server; behind it 10.8.0.1 and 10.8.0.9
 */
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { LinkFinding } from "../../../src/schemas/Connectivity.ts"
import { type LookRequest, lookArgument } from "./LookOnce.ts"

const program = join(import.meta.dirname, "LookOnce.ts")

const beginning = `
set -e
mount -t tmpfs none /run
ip link set lo up
ip netns add device
ip link add v0 type veth peer name v1 netns device
ip address add 10.9.0.1/24 dev v0
ip address add 10.8.0.1/32 dev lo
ip address add 10.8.0.9/32 dev lo
ip link set v0 up
ip netns exec device ip link set lo up
set +e
`

/** Answers every name with 10.8.0.1. */
const nameServer = `
const socket = require("node:dgram").createSocket("udp4")
socket.on("message", (query, from) => {
  const end = query.indexOf(0, 12) + 5
  const isAddress = query.readUInt16BE(end - 4) === 1
  const head = Buffer.from([query[0], query[1], 0x81, 0x80, 0, 1, 0, isAddress ? 1 : 0, 0, 0, 0, 0])
  const answer = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 8, 0, 1])
  socket.send(Buffer.concat([head, query.subarray(12, end), isAddress ? answer : Buffer.alloc(0)]), from.port, from.address)
})
socket.bind(53, "10.9.0.1", () => console.log("listening"))
`

const listener = (host: string, port: number) =>
  `require("node:net").createServer((socket) => socket.end()).listen(${port}, "${host}", () => console.log("listening"))`

/** Answers every request the same way. */
const webServer = ({ headers = {}, status, tls }: WebAnswer, host: string, port: number) => {
  const options =
    tls === undefined
      ? "{}"
      : `{ key: require("node:fs").readFileSync("${tls}.key"), cert: require("node:fs").readFileSync("${tls}.pem") }`
  const server = `require("node:${tls === undefined ? "http" : "https"}").createServer(${options}, (_, answer) => answer.writeHead(${status}, ${JSON.stringify(headers)}).end())`
  return `${server}.listen(${port}, "${host}", () => console.log("listening"))`
}

/** What a web server says to whatever it is asked. */
export interface WebAnswer {
  readonly status: number
  readonly headers?: Readonly<Record<string, string>>
  /** Its key and certificate: a path without `.key` and `.pem`. */
  readonly tls?: string
}

export class World {
  private readonly shell: ChildProcessWithoutNullStreams
  private readonly folder = mkdtempSync(join(tmpdir(), "postern-world-"))
  private output = ""
  private errors = ""
  private count = 0
  private heard: () => void = () => undefined

  constructor() {
    this.shell = spawn("unshare", ["--net", "--mount", "--propagation", "private", "sh"], {
      stdio: ["pipe", "pipe", "pipe"]
    })
    this.shell.stdout.setEncoding("utf8").on("data", (text: string) => {
      this.output += text
      this.heard()
    })
    this.shell.stderr.setEncoding("utf8").on("data", (text: string) => {
      this.errors = (this.errors + text).slice(-4_000)
    })
    this.shell.on("close", () => this.heard())
    this.shell.stdin.on("error", () => undefined)
    writeFileSync(join(this.folder, "resolv.conf"), "nameserver 10.9.0.1\noptions timeout:1 attempts:1\n")
  }

  /** Runs lines of shell in the world, and gives what they print; fails with what they complain about. */
  async run(script: string): Promise<string> {
    const mark = `end-${++this.count}`
    const from = this.output.length
    this.shell.stdin.write(`{ ${script}\n}; echo "${mark} $?"\n`)
    const pattern = new RegExp(`^${mark} (\\d+)$`, "m")
    for (;;) {
      const found = pattern.exec(this.output.slice(from))
      if (found !== null) {
        const printed = this.output.slice(from, from + found.index)
        if (found[1] !== "0") throw new Error(`${script}\nended with ${found[1]}: ${printed}${this.errors}`)
        return printed
      }
      if (this.shell.exitCode !== null) throw new Error(`the world ended: ${this.errors}`)
      await new Promise<void>((resolve) => {
        this.heard = resolve
      })
    }
  }

  /** Makes the namespaces. */
  async begin(): Promise<void> {
    await this.run(`${beginning}\nmount --bind ${this.folder}/resolv.conf /etc/resolv.conf`)
  }

  /** Runs lines of shell on the device. */
  device(script: string): Promise<string> {
    return this.run(`ip netns exec device sh -c '${script}'`)
  }

  /** Looks at the network from the device, in a process of its own. */
  async look(request: LookRequest, environment = ""): Promise<LinkFinding> {
    const command = [environment, process.execPath, program, lookArgument(request)].join(" ")
    return JSON.parse((await this.device(command)).trim().split("\n").at(-1) ?? "")
  }

  private async serve(name: string, code: string): Promise<void> {
    const file = join(this.folder, `${name}.cjs`)
    writeFileSync(file, code)
    const out = join(this.folder, `${name}.out`)
    await this.run(
      `${process.execPath} ${file} >${out} 2>&1 & pids="$pids $!"; until grep -q listening ${out}; do kill -0 $! || { cat ${out}; false; break; }; sleep 0.02; done`
    )
  }

  /** Lets somebody listen in the world. */
  listen(host: string, port: number): Promise<void> {
    return this.serve(`listen-${host}-${port}`, listener(host, port))
  }

  /** Lets a web server answer every request with this head. */
  web(host: string, port: number, answer: WebAnswer): Promise<void> {
    return this.serve(`web-${host}-${port}`, webServer(answer, host, port))
  }

  /** Makes a key and a certificate for a name, signed by itself; gives their path without `.key` and `.pem`. */
  async certificate(name: string, inDays = 0): Promise<string> {
    const path = join(this.folder, `${name}-${inDays}`)
    const clock = inDays === 0 ? "" : `faketime -f +${inDays}d `
    await this.run(
      `${clock}openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=${name} -addext subjectAltName=DNS:${name} -keyout ${path}.key -out ${path}.pem 2>/dev/null`
    )
    return path
  }

  answerNames(): Promise<void> {
    return this.serve("names", nameServer)
  }

  /** Ends everything in it, and it. */
  async end(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.shell.once("close", () => resolve()))
    this.shell.stdin.end("kill $pids 2>/dev/null; wait; exit 0\n")
    await closed
    rmSync(this.folder, { recursive: true, force: true })
  }
}

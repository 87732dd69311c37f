/**
 * A program with the real warden and a client of a few lines, which does what its argument says. As a client it says
 * everything over the real pipe, with the real frames.
 */
import { appendFileSync, openSync } from "node:fs"
import { Socket } from "node:net"
import { encodeFrame, FrameLimits, FrameReader } from "../../../src/adapters/warden/Frames.ts"
import {
  decodeToClient,
  type ToWarden,
  wardenDescriptor,
  wardenVariable
} from "../../../src/adapters/warden/Messages.ts"
import { runWarden } from "../../../src/adapters/warden/Warden.ts"
import { defaultJobLimits } from "../../../src/schemas/Manifest.ts"

const [node, file, mode = "", lives = ""] = process.argv as [string, string, ...Array<string>]
const asRoot = process.getuid?.() === 0

const policy = {
  bwrap: "bwrap",
  uid_base: asRoot ? 64_000 : null,
  client_uid: asRoot ? 63_999 : null,
  devices: {},
  read_only: [],
  private_paths: ["/var/lib/postern"],
  // A machine that is busy lets others be silent for longer than that, too.
  hung_after_ms: mode === "spin" ? 1_500 : 60_000,
  respawn: mode !== "once"
}

/** A request to start something harmless, with what is told of it. */
const start = (
  folder: number | null,
  grants: { readonly devices: ReadonlyArray<string>; readonly read_only: ReadonlyArray<string> } = {
    devices: [],
    read_only: []
  }
) => ({
  command: ["true"],
  environment: {},
  package: folder,
  limits: defaultJobLimits,
  grants
})

/** Asks for all, prints the answers and goes. As root it gives that up first, but in the mode `root`. */
const askAll = (
  pipe: Socket,
  say: (message: ToWarden) => void,
  starts: ReadonlyArray<ReturnType<typeof start>>
): void => {
  const reader = new FrameReader(FrameLimits.toClient)
  let left = starts.length
  pipe.on("data", (bytes: Buffer) => {
    for (const value of reader.take(bytes)) {
      const answer = decodeToClient(value, "an answer")
      process.stdout.write(`${JSON.stringify(answer)}\n`)
      if (answer.type === "welcome") {
        if (asRoot && mode !== "root") {
          process.setgroups?.([63_999])
          process.setgid?.(63_999)
          process.setuid?.(63_999)
        }
        for (const [index, one] of starts.entries()) say({ type: "start", run: index + 1, ...one })
      }
      if (answer.type === "refused" || answer.type === "ended") left -= 1
    }
    if (left === 0) process.exit(0)
  })
}

const client = () => {
  // Before anybody knows of this life.
  if (mode === "deaf") process.on("SIGTERM", () => undefined)
  appendFileSync(lives, `${process.pid}\n`)
  const pipe = new Socket({ fd: wardenDescriptor, readable: true, writable: true })
  const say = (message: ToWarden) => pipe.write(encodeFrame(message, 1024 * 1024))
  pipe.resume()
  if (mode !== "orphan") pipe.on("close", () => process.kill(process.pid, "SIGKILL"))
  if (mode.startsWith("exit-")) process.exit(Number(mode.slice(5)))
  say({ type: "hello", policy })
  const beating = setInterval(() => say({ type: "beat" }), 200)
  switch (mode) {
    case "spin":
      // After the first beats have been sent, the event loop never turns again.
      setTimeout(() => {
        for (;;);
      }, 600)
      return
    case "garbage":
      setTimeout(() => pipe.write("this is no frame at all"), 300)
      return
    case "early":
      clearInterval(beating)
      say({ type: "hello", policy })
      return
    case "root":
      // Still root: no job is started for it.
      return askAll(pipe, say, [start(null)])
    case "hostile":
      return askAll(pipe, say, [
        start(null, { devices: [], read_only: ["/etc"] }),
        start(null, { devices: [], read_only: ["/srv"] }),
        start(null, { devices: ["camera"], read_only: [] }),
        start(999),
        start(openSync("/etc/passwd", "r")),
        start(wardenDescriptor)
      ])
    case "once":
      setTimeout(() => process.exit(1), 300)
      return
    case "notify":
      say({ type: "working" })
      setInterval(() => say({ type: "alive" }), 1_100)
      return
    case "silent":
      say({ type: "working" })
      return
    default:
      return
  }
}

if (process.env[wardenVariable] === undefined)
  runWarden({ command: [node, file, mode, lives], environment: process.env })
else client()

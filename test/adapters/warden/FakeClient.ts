/**
 * A program with the real warden and a client of a few lines, which does what its argument says. As a client it says
 * everything over the real pipe, with the real frames.
 */
import { appendFileSync } from "node:fs"
import { Socket } from "node:net"
import { encodeFrame } from "../../../src/adapters/warden/Frames.ts"
import { type ToWarden, wardenDescriptor, wardenVariable } from "../../../src/adapters/warden/Messages.ts"
import { runWarden } from "../../../src/adapters/warden/Warden.ts"

const [node, file, mode = "", lives = ""] = process.argv as [string, string, ...Array<string>]
const asRoot = process.getuid?.() === 0

const policy = {
  bwrap: "bwrap",
  uid_base: asRoot ? 64_000 : null,
  client_uid: asRoot ? 63_999 : null,
  devices: {},
  read_only: [],
  private_paths: ["/var/lib/postern"],
  hung_after_ms: 1_500,
  respawn: mode !== "once"
}

const client = () => {
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
      // Still root: no job is started for it. The answer is written down, and the client goes.
      say({
        type: "start",
        run: 1,
        command: ["true"],
        environment: {},
        package: null,
        limits: JSON.parse(process.env["LIMITS"] ?? "{}"),
        grants: { devices: [], read_only: [] }
      })
      pipe.on("data", (bytes: Buffer) => {
        const text = bytes.toString("latin1")
        if (!text.includes("refused")) return
        process.stdout.write(`${text}\n`)
        process.exit(0)
      })
      return
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
    case "deaf":
      process.on("SIGTERM", () => undefined)
      return
    default:
      return
  }
}

if (process.env[wardenVariable] === undefined)
  runWarden({ command: [node, file, mode, lives], environment: process.env })
else client()

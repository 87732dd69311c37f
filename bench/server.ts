/**
 * Polls per second: signed requests of many accepted devices on kept connections to the built server, each answered with
 * a signed statement, nothing to do. The peers are a bare `node:http` server that reads as much and answers as much, and
 * the same with one Ed25519 verification and one signature for each request, which is what the protocol costs at least.
 * Each server is a process of its own; this one only sends. Requests are signed before the clock starts.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { randomBytes } from "node:crypto"
import { mkdtempSync, rmSync } from "node:fs"
import { Agent, request as httpRequest } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, Redacted } from "effect"
import { NativeCrypto } from "../src/adapters/NativeCrypto.ts"
import { type NodeKeyRing, nodeKeyRingFrom } from "../src/adapters/NodeKeys.ts"
import { firstRoot } from "../src/adapters/operator/OperatorKeys.ts"
import { SqliteFleetStoreInProcess } from "../src/adapters/sqlite/SqliteFleetStore.ts"
import { encodeBase32 } from "../src/crypto/Base32.ts"
import { utf8 } from "../src/crypto/Bytes.ts"
import { secretKeysEntropyBytes } from "../src/crypto/IdentityKeys.ts"
import { signRequest } from "../src/crypto/RequestSignature.ts"
import { FleetStore } from "../src/ports/FleetStore.ts"
import { deviceApiPath } from "../src/schemas/DeviceApi.ts"
import type { ServerIdentity } from "../src/schemas/Enrolment.ts"
import type { DeviceId } from "../src/schemas/Ids.ts"
import { admission, enrolment, pollBody } from "../test/support/fleet.ts"
import { operator, recovery } from "../test/support/operators.ts"
import { freePort, runToEnd, waitUntil } from "../test/support/Program.ts"
import { type Bench, type Contender, compare, race } from "./measure.ts"

const connections = 32
const deviceCount = 64
const path = `${deviceApiPath}/poll`
const environment = { PATH: process.env["PATH"] ?? "" }
const program = join(import.meta.dirname, "../dist/server.js")

interface Sendable {
  readonly headers: Readonly<Record<string, string>>
  readonly body: Uint8Array
}

const devices: ReadonlyArray<NodeKeyRing> = Array.from({ length: deviceCount }, () =>
  nodeKeyRingFrom(NativeCrypto, "device", randomBytes(secretKeysEntropyBytes))
)

/** Puts a root and accepted devices into the server's database before it starts. */
const prepare = async (state: string, port: number): Promise<void> => {
  const asked = await runToEnd([process.execPath, program, "identity", "--state", state], {
    cwd: state,
    environment
  })
  const server = JSON.parse(asked.stdout) as ServerIdentity
  const nowMs = Date.now()
  const addresses = [`http://127.0.0.1:${port}`]
  const root = firstRoot(NativeCrypto, {
    operator,
    recovery,
    server,
    addresses,
    nowMs,
    lifetimeMs: 86_400_000
  })
  await Effect.gen(function* () {
    const store = yield* FleetStore
    yield* store.addRoot(1, root.envelope, "bench", nowMs)
    for (const [index, device] of devices.entries()) {
      const request = enrolment(nowMs, device, { server: server.server, root_digest: root.digest })
      yield* store.enrol(request.request, request.envelope, nowMs)
      const decision = admission(nowMs, { name: `device-${index}` as never, server: server.server }, device)
      yield* store.admit(decision.decision, decision.envelope, "bench", nowMs)
    }
  }).pipe(
    Effect.provide(SqliteFleetStoreInProcess({ folder: state, maximumDevices: deviceCount })),
    Effect.runPromise
  )
}

/** Signed polls, the devices in turns. */
const signedPolls = (count: number, port: number): ReadonlyArray<Sendable> => {
  const body = utf8(JSON.stringify(pollBody()))
  const createdSeconds = Math.floor(Date.now() / 1_000)
  const parts = {
    method: "POST",
    authority: `127.0.0.1:${port}`,
    path,
    query: "",
    contentType: "application/json"
  }
  return Array.from({ length: count }, (_, index) => {
    const device = devices[index % devices.length] as NodeKeyRing
    const nonce = encodeBase32(randomBytes(16))
    const seed = Redacted.value(device.signingSeed)
    const headers = signRequest(NativeCrypto, parts, body, {
      keyId: device.id as DeviceId,
      seed,
      createdSeconds,
      nonce
    })
    return { headers: { ...headers }, body }
  })
}

const sendOne = (agent: Agent, port: number, { body, headers }: Sendable): Promise<void> =>
  new Promise((resolve, reject) => {
    const outgoing = httpRequest(
      { host: "127.0.0.1", port, path, method: "POST", headers, agent },
      (incoming) => {
        incoming.resume()
        incoming.on("end", () =>
          incoming.statusCode === 200 ? resolve() : reject(new Error(`answered ${incoming.statusCode}`))
        )
      }
    )
    outgoing.on("error", reject)
    outgoing.end(body)
  })

/** Sends all, `connections` at a time. */
const sendAll = async (agent: Agent, port: number, requests: ReadonlyArray<Sendable>): Promise<number> => {
  const before = performance.now()
  let next = 0
  const lane = async () => {
    for (let request = requests[next++]; request !== undefined; request = requests[next++]) {
      await sendOne(agent, port, request)
    }
  }
  await Promise.all(Array.from({ length: connections }, lane))
  return performance.now() - before
}

/** Answers as long as ours: some 120 bytes of body and a statement of some 800 in the head. */
const bareServer = (withSignatures: boolean): string => `
  const { createServer } = require("node:http")
  const { sign, verify, generateKeyPairSync } = require("node:crypto")
  const { privateKey, publicKey } = generateKeyPairSync("ed25519")
  const message = Buffer.alloc(500, 1), signature = sign(null, message, privateKey)
  const body = JSON.stringify({ orders: [], cancels: [], stops: [], admission: null, objection: null, sleep_ms: 60000 })
  createServer((incoming, outgoing) => {
    const parts = []
    incoming.on("data", (part) => parts.push(part))
    incoming.on("end", () => {
      JSON.parse(Buffer.concat(parts).toString())
      let statement = "s".repeat(800)
      if (${withSignatures}) {
        if (!verify(null, message, publicKey, signature)) process.exit(1)
        statement = sign(null, message, privateKey).toString("base64").repeat(9)
      }
      outgoing.writeHead(200, { "content-type": "application/json", "postern-statement": statement, "content-length": body.length })
      outgoing.end(body)
    })
  }).listen(Number(process.argv[1]), "127.0.0.1")`

/** Starts a server and waits until its port answers at all. */
const start = async (args: ReadonlyArray<string>, port: number): Promise<ChildProcess> => {
  const child = spawn(process.execPath, [...args], { env: environment, stdio: "ignore" })
  await waitUntil("a server's port", async () => {
    if (child.exitCode !== null) throw new Error(`the server ended with ${child.exitCode}`)
    try {
      await fetch(`http://127.0.0.1:${port}/`, { method: "POST", body: "{}" })
      return true
    } catch {
      return false
    }
  })
  return child
}

export const run: Bench = async ({ short }) => {
  const state = mkdtempSync(join(tmpdir(), "postern-bench-server-"))
  const agent = new Agent({ keepAlive: true, maxSockets: connections })
  const children: Array<ChildProcess> = []
  try {
    const [ours, bare, signing] = [await freePort(), await freePort(), await freePort()]
    await prepare(state, ours)
    children.push(await start([program, "--state", state, "--port", String(ours)], ours))
    children.push(await start(["-e", bareServer(false), String(bare)], bare))
    children.push(await start(["-e", bareServer(true), String(signing)], signing))
    // What was signed in the second of the server's start is refused: another life may have seen it.
    await new Promise((resolve) => setTimeout(resolve, 1_100))
    const against =
      (port: number): Contender =>
      (count) =>
        sendAll(agent, port, signedPolls(count, port))
    const rates = await race(
      {
        ours: against(ours),
        "bare node:http": against(bare),
        "node:http, one verify and one sign": against(signing)
      },
      { count: short ? 1_000 : 4_000, rounds: short ? 5 : 11 }
    )
    return [compare({ name: "polls answered", unit: "/s", better: "higher" }, rates, "ours")]
  } finally {
    agent.destroy()
    for (const child of children) child.kill("SIGKILL")
    rmSync(state, { recursive: true, force: true })
  }
}

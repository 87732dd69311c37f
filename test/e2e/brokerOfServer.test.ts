/** The server's own MQTT broker in the program as it is shipped: reached, backed up, broken, turned off. */
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { request } from "node:http"
import { connect, createServer } from "node:net"
import { join } from "node:path"
import { Redacted, Result } from "effect"
import mqtt, { type MqttClient } from "mqtt"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { NativeCrypto } from "../../src/adapters/NativeCrypto.ts"
import { readHandshakeAnswer } from "../../src/crypto/Handshakes.ts"
import { toWire } from "../../src/crypto/Messages.ts"
import { signJson } from "../../src/crypto/SignedJson.ts"
import { brokerServicesOf } from "../../src/crypto/Trust.ts"
import type { ConnectProof, Handshake, SessionId } from "../../src/schemas/Agents.ts"
import type { ServerIdentity } from "../../src/schemas/Enrolment.ts"
import type { DeviceId, Name } from "../../src/schemas/Ids.ts"
import type { MessageId } from "../../src/schemas/Message.ts"
import { mqttPath } from "../../src/schemas/MessagingOffer.ts"
import { BuiltFleet } from "../support/BuiltFleet.ts"
import { ringOf } from "../support/messaging.ts"
import { freePort, waitUntil } from "../support/Program.ts"

const engine = NativeCrypto
const patienceMs = 240_000
const name = "newcomer" as Name
/** A device that nobody has accepted. */
const ring = ringOf("device", name)
const device = ring.id as DeviceId
const signer = { seed: Redacted.value(ring.signingSeed), signingKey: ring.signingKey }

let fleet: BuiltFleet
let sessions = 0
const nextSession = () => `${"a".repeat(25)}${"bcdefghijklm"[sessions++] as string}`

const identityOf = async (): Promise<ServerIdentity> =>
  (await (await fetch(`${fleet.address}/api/device/v1/identity`)).json()) as ServerIdentity

const servicesKey = async (): Promise<string | null> =>
  Result.getOrThrow(brokerServicesOf(engine, await identityOf()))

/** Connects with a proof for the server as it is now; gives what its handshake is answered. */
const shakeHands = async (
  origin = `${fleet.address.replace("http", "ws")}${mqttPath}`
): Promise<ReturnType<typeof readHandshakeAnswer>> => {
  const session = nextSession() as SessionId
  const proof = signJson<ConnectProof>(engine, signer, {
    type: "postern/mqtt-connect/v1",
    agent: name,
    device,
    server: (await identityOf()).server,
    session,
    issued_at_ms: Date.now()
  })
  const client: MqttClient = mqtt.connect(origin, {
    clientId: name,
    username: name,
    password: Buffer.from(toWire(proof)),
    reconnectPeriod: 0
  })
  try {
    const answers: Array<Uint8Array> = []
    const trouble: Array<string> = []
    client.on("error", (error) => void trouble.push(error.message))
    client.on("message", (_topic, payload) => void answers.push(new Uint8Array(payload)))
    const told = () => `${trouble.join("; ")}\n${fleet.server.log().slice(-2_000)}`
    await waitUntil("the connection", () => client.connected, 60_000, told)
    await client.subscribeAsync(`mf2c/${name}/handshake`, { qos: 1 })
    const shake = signJson<Handshake>(engine, signer, {
      type: "postern/handshake/v1",
      agent: name,
      device,
      session,
      nonce: session as string as MessageId,
      agreement: { key: ring.agreementKey, version: 1 },
      visible: true,
      edge_devices: [],
      issued_at_ms: Date.now()
    })
    await client.publishAsync("mf2c/broker-services/handshake", Buffer.from(toWire(shake)), { qos: 1 })
    await waitUntil("the answer", () => answers.length > 0, 60_000, told)
    return readHandshakeAnswer(engine, answers[0] as Uint8Array)
  } finally {
    await client.endAsync(true)
  }
}

/** How the place for MQTT answers a WebSocket's handshake. */
const upgradeStatus = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const headers = {
      connection: "Upgrade",
      upgrade: "websocket",
      "sec-websocket-version": "13",
      "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="
    }
    const asked = request(`${fleet.address}${mqttPath}`, { headers, agent: false })
    asked.on("response", (response) => {
      response.resume()
      resolve(response.statusCode ?? 0)
    })
    asked.on("upgrade", (_response, socket) => {
      socket.destroy()
      resolve(101)
    })
    asked.on("error", reject)
    asked.end()
  })

describe("the broker of a built server", () => {
  beforeAll(async () => {
    fleet = await BuiltFleet.create()
    await fleet.startServer()
  }, patienceMs)
  afterAll(() => fleet?.close())

  it(
    "takes MQTT over WebSocket, and broker services answer there with the key that the server vouches for",
    async () => {
      const key = await servicesKey()
      expect(key).not.toBeNull()
      const answer = Result.getOrThrow(await shakeHands())
      expect(answer).toMatchObject({ agent: name, verdict: "waiting", signing_key: key })
      const told = await fleet.run("server", ["identity", "--state", fleet.serverFolder])
      expect(JSON.parse(told.stdout)).toMatchObject({ broker_services: (await identityOf()).broker_services })
    },
    patienceMs
  )

  it(
    "is backed up and restored with the rest: keys and messages",
    async () => {
      const key = await servicesKey()
      const backup = join(fleet.folder, "backup")
      const made = await fleet.run("server", ["backup", backup, "--state", fleet.serverFolder])
      expect(made).toMatchObject({ code: 0, stderr: "" })
      const { files } = JSON.parse(readFileSync(join(backup, "manifest.json"), "utf8"))
      const paths = (files as ReadonlyArray<{ readonly path: string }>).map(({ path }) => path)
      expect(paths).toEqual(expect.arrayContaining(["keys/broker-services.json", "messages.db"]))
      await fleet.server.crash()
      fleet.moveServer("restored")
      const restored = await fleet.run("server", ["restore", backup, "--state", fleet.serverFolder])
      expect(restored).toMatchObject({ code: 0, stderr: "" })
      await fleet.startServer()
      expect(await servicesKey()).toBe(key)
      expect(Result.getOrThrow(await shakeHands()).signing_key).toBe(key)
    },
    patienceMs
  )

  it(
    "costs messages and nothing else when its database is damaged",
    async () => {
      await fleet.server.crash()
      const path = join(fleet.serverFolder, "messages.db")
      const whole = readFileSync(path)
      for (const suffix of ["-wal", "-shm"])
        if (existsSync(`${path}${suffix}`)) writeFileSync(`${path}${suffix}`, "")
      writeFileSync(path, "this is no database, and was one before the disk was broken ".repeat(100))
      await fleet.startServer()
      expect(fleet.server.log()).toContain("no messages are carried, and everything else goes on")
      expect(await servicesKey()).toBeNull()
      expect(await upgradeStatus()).toBe(404)
      await fleet.server.crash()
      writeFileSync(path, whole)
      await fleet.startServer()
      expect(await upgradeStatus()).toBe(101)
    },
    patienceMs
  )
})

describe("a built server with a port for MQTT", () => {
  it(
    "takes strangers and agents there too, ends with them connected, and names the setting of a port that is taken",
    async () => {
      const port = await freePort()
      const own = await BuiltFleet.create({ serverSettings: ["[messaging]", `listen = "127.0.0.1:${port}"`] })
      try {
        fleet = own
        await fleet.startServer()
        expect(Result.getOrThrow(await shakeHands(`mqtt://127.0.0.1:${port}`)).verdict).toBe("waiting")
        const silent = connect(port, "127.0.0.1")
        silent.on("error", () => undefined)
        await waitUntil("a connection", () => silent.readyState === "open")
        expect((await fleet.server.stop(60_000)).code).toBe(0)
        const taken = createServer().listen(port, "127.0.0.1")
        try {
          fleet.server.start()
          expect(await fleet.server.ended(60_000)).toBe(1)
          expect(fleet.server.log()).toContain("or name another port with messaging.listen")
        } finally {
          taken.close()
        }
      } finally {
        await own.close()
      }
    },
    patienceMs
  )
})

describe("a built server without messages", () => {
  it(
    "says so, and makes no keys and no database for them",
    async () => {
      const plain = await BuiltFleet.create({ serverSettings: ["[messaging]", "enabled = false"] })
      try {
        fleet = plain
        await fleet.startServer()
        expect(await servicesKey()).toBeNull()
        expect(await upgradeStatus()).toBe(404)
        const made = ["keys/broker-services.json", "messages.db"].filter((file) =>
          existsSync(join(fleet.serverFolder, file))
        )
        expect(made).toEqual([])
      } finally {
        await plain.close()
      }
    },
    patienceMs
  )
})

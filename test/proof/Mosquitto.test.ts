/**
 * The built programs over a real Mosquitto, set up as the page says: with TLS, by the files of `postern broker
 * mosquitto-config`, killed in the middle; and a device that is revoked.
 */
import { appendFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, expect, it } from "vitest"
import { fileNames } from "../../src/adapters/mosquitto/MosquittoFiles.ts"
import { agentWhen, inboxOf, isKnown, peersOf, sendBy } from "../support/agents.ts"
import { type BuiltDevice, BuiltFleet } from "../support/BuiltFleet.ts"
import { makeCertificates, RealMosquitto } from "../support/mosquitto.ts"
import { freePort, waitUntil } from "../support/Program.ts"
import { describeWith } from "../support/requires.ts"

const patienceMs = 180_000
const levels = ["public", "protected", "private", "end_to_end"] as const

describeWith(["mosquitto", "openssl"], "built agents over a Mosquitto", () => {
  let folder: string
  let mosquitto: RealMosquitto
  let fleet: BuiltFleet
  let alice: BuiltDevice
  let bob: BuiltDevice

  /** Who has an account, as Mosquitto wrote it down; undefined while it writes, for the file has its name before its text. */
  const accounts = (): ReadonlyArray<string> | undefined => {
    const text = readFileSync(join(mosquitto.folder, fileNames.security), "utf8")
    try {
      const { clients } = JSON.parse(text) as {
        readonly clients: ReadonlyArray<{ readonly username: string }>
      }
      return clients.map(({ username }) => username)
    } catch {
      return undefined
    }
  }

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "postern-mosquitto-"))
    mosquitto = new RealMosquitto(folder)
    mosquitto.port = await freePort()
    const tls = join(folder, "tls")
    mkdirSync(tls)
    makeCertificates(tls)
    const maker = await BuiltFleet.create()
    const made = await maker.postern([
      ...["broker", "mosquitto-config", mosquitto.folder, "--listen", `127.0.0.1:${mosquitto.port}`],
      ...["--certificate", join(tls, "server.crt"), "--key", join(tls, "server.key")],
      ...["--ca", join(tls, "ca.crt")]
    ])
    await maker.close()
    expect(made, made.stderr).toMatchObject({ code: 0 })
    // Mosquitto gives root up unless it is told not to, and could not read a folder of this test's.
    if (process.getuid?.() === 0)
      appendFileSync(join(mosquitto.folder, fileNames.configuration), "user root\n")
    await mosquitto.start()
    const settings = readFileSync(join(mosquitto.folder, fileNames.settings), "utf8").split("\n")
    fleet = await BuiltFleet.withServer({ serverSettings: settings })
    const visible = { settings: ["agent.visible = true"] }
    alice = await fleet.acceptedDevice("alice", visible)
    bob = await fleet.acceptedDevice("bob", visible)
    await Promise.all([isKnown(alice), isKnown(bob)])
    await waitUntil("alice to see bob", async () => (await peersOf(alice)).includes("bob"), patienceMs)
  })
  afterAll(async () => {
    await fleet?.close()
    await mosquitto?.stop()
    rmSync(folder, { recursive: true, force: true })
  })

  it("exchange messages of each level, while Mosquitto and the server are killed", async () => {
    const sent: Array<string> = []
    const send = async () => {
      for (const level of levels) {
        sent.push(`message ${sent.length}`)
        await sendBy(alice, level, ["bob"], sent.at(-1))
      }
    }
    await send()
    await mosquitto.stop("SIGKILL")
    await send()
    await mosquitto.start()
    await send()
    await fleet.server.crash()
    await send()
    await fleet.startServer()
    await send()
    const came = await inboxOf(bob, sent.length)
    expect(came.map(({ message }) => message.body).sort()).toEqual([...sent].sort())
  })

  it("lose account and connection when they are revoked", async () => {
    expect(await waitUntil("the accounts", accounts)).toContain("bob")
    await isKnown(bob)
    await fleet.ask(["devices", "revoke", "bob", "--yes"])
    await agentWhen(bob, "to be cut off", ({ state }) => state !== "known")
    await waitUntil("bob's account to be gone", () => accounts()?.includes("bob") === false, patienceMs)
    expect(await waitUntil("the accounts", accounts)).toContain("alice")
    await waitUntil(
      "alice to see bob no more",
      async () => !(await peersOf(alice)).includes("bob"),
      patienceMs
    )
  })
})

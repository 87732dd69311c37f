/**
 * The whole way of work through Tor, with the programs as they are shipped: a server that is an onion service, a device
 * that sends nothing but through Tor, and somebody who knows the addresses and no key.
 */
import { createHash, randomBytes } from "node:crypto"
import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Effect, Exit, Scope } from "effect"
import { afterAll, beforeAll, expect, it } from "vitest"
import { httpTransport } from "../../src/adapters/HttpTransport.ts"
import { TransportError } from "../../src/adapters/http/Transport.ts"
import { startLabNode } from "../../src/adapters/tor/lab/LabNode.ts"
import { connectControl, type TorControl, torInfo } from "../../src/adapters/tor/TorControl.ts"
import { torPaths } from "../../src/adapters/tor/Torrc.ts"
import { askAgent, inboxOf, isKnown, sendBy } from "../support/agents.ts"
import { type BuiltDevice, BuiltFleet } from "../support/BuiltFleet.ts"
import { waitUntil } from "../support/Program.ts"
import { describeWith } from "../support/requires.ts"
import { type KnownTorNetwork, onionSettings, sharedTorNetwork, torSettings } from "../support/torNetwork.ts"

/** Longer than any test's patience: what comes sooner came by a poll that the server held open. */
const pollSleepMs = 1_800_000
/** For one command, or one step: a circuit that is dead costs up to a minute. */
const patienceMs = 180_000
/** Far more than all circuits of a download together have in flight: a megabyte each. */
const payloadBytes = 16 * 1024 * 1024

interface ServerIdentity {
  readonly addresses: ReadonlyArray<string>
  readonly enrol_addresses: ReadonlyArray<string>
}

describeWith(["tor", "tor-gencert", "jail"], "a fleet that meets through Tor", () => {
  let network: KnownTorNetwork
  let fleet: BuiltFleet
  let device: BuiltDevice
  let identity: ServerIdentity
  /** Whatever the tests open themselves. */
  const scope = Scope.makeUnsafe()
  const inScope = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) =>
    Effect.runPromise(Scope.provide(effect, scope))

  beforeAll(async () => {
    network = await sharedTorNetwork()
    fleet = await BuiltFleet.withServer({
      serverSettings: [`poll_sleep_ms = ${pollSleepMs}`, ...onionSettings(network)]
    })
    const answer = await fetch(`${fleet.address}/api/device/v1/identity`)
    identity = (await answer.json()) as ServerIdentity
    device = await fleet.acceptedDevice("pi-far", {
      server: null,
      settings: ["health_interval_ms = 1000", ...torSettings(network, "always")]
    })
  })
  afterAll(async () => {
    await Effect.runPromise(Scope.close(scope, Exit.void))
    await fleet?.close()
  })

  it("names onion addresses alone, and publishes the one for devices", async () => {
    expect(identity.addresses).toEqual([expect.stringMatching(/^http:\/\/[a-z2-7]{56}\.onion$/)])
    expect(identity.enrol_addresses).toEqual([expect.stringMatching(/^http:\/\/[a-z2-7]{56}\.onion$/)])
    type Status = { readonly onion: { readonly services: ReadonlyArray<Record<string, unknown>> } }
    const { onion } = await fleet.ask<Status>(["status"])
    expect(onion.services.find(({ service }) => service === "device")).toMatchObject({
      address: identity.addresses[0],
      descriptor: "published",
      authorised: 1
    })
  })

  it("gives the device work while its poll is held open, and brings output and receipt back", async () => {
    const ended = await fleet.postern(["run", "pi-far", "--", "sh", "-c", "echo out; echo err >&2; exit 7"], {
      timeoutMs: patienceMs
    })
    expect(ended.code, ended.stderr).toBe(7)
    expect(ended.stdout).toBe("out\n")
    expect(ended.stderr).toMatch(/\nerr\npostern: verified: failed: exit code 7 on pi-far /)
  })

  it("goes on with a download whose circuits were cut", async () => {
    const folder = join(fleet.folder, "large")
    const data = randomBytes(payloadBytes)
    mkdirSync(folder)
    writeFileSync(join(folder, "data"), data)
    writeFileSync(join(folder, "postern.json"), JSON.stringify({ command: ["sha256sum", "/package/data"] }))
    const file = join(fleet.folder, "large.postern")
    await fleet.ask(["package", "build", folder, "--device", "pi-far", "-o", file])
    const control = await inScope(
      connectControl({ endpoint: { path: torPaths(join(device.state, "tor")).control } })
    )
    const read = async () => Number(await Effect.runPromise(torInfo(control, "traffic/read")))
    const before = await read()
    const { job } = await fleet.ask<{ job: string }>(["jobs", "submit", file, "--device", "pi-far", "--yes"])
    const most = async () => (await read()) - before > payloadBytes * 0.65
    await waitUntil("most of the payload", most, patienceMs)
    expect(await closeCircuits(control)).toBeGreaterThan(0)
    const finished = await fleet.finished(job)
    expect(finished.state, JSON.stringify(finished)).toBe("succeeded")
    // From its beginning again it would be more than 1.65; with what was in flight and tor's overhead it is about 1.3.
    expect((await read()) - before).toBeLessThan(payloadBytes * 1.6)
    const logs = await fleet.postern(["jobs", "logs", job])
    expect(logs.stdout).toContain(createHash("sha256").update(data).digest("hex"))
  })

  it("carries the device's messages, to broker services and back", async () => {
    await isKnown(device)
    const trip = await askAgent<number>(device, { request: "ping", to: "broker-services" })
    expect(trip).toBeGreaterThan(0)
    await sendBy(device, "private", ["pi-far"], "through Tor and back")
    const came = await inboxOf(device, 1)
    expect(came.map(({ message }) => message.body)).toEqual(["through Tor and back"])
    // On a circuit that no request shares.
    const control = await inScope(
      connectControl({ endpoint: { path: torPaths(join(device.state, "tor")).control } })
    )
    const circuits = await Effect.runPromise(torInfo(control, "circuit-status"))
    const names = [...circuits.matchAll(/SOCKS_USERNAME="([^"]*)"/g)].map(([, name]) => name as string)
    expect(names.filter((name) => name.includes("-long-")).length, circuits).toBeGreaterThan(0)
    expect(names.filter((name) => !name.includes("-long-")).length, circuits).toBeGreaterThan(0)
  })

  it("cancels a running job", async () => {
    const { job } = await fleet.ask<{ job: string }>(["run", "pi-far", "--detach", "--", "sleep", "600"])
    await fleet.job(job, ["running"])
    expect((await fleet.postern(["jobs", "cancel", job])).code).toBe(0)
    expect((await fleet.finished(job)).receipt).toMatchObject({
      state: "canceled",
      reason: "canceled_by_operator"
    })
  })

  it("tells the device's health", async () => {
    type Shown = { readonly health: { readonly configuration_digest: string } | null }
    const report = await waitUntil(
      "a report of the device's health",
      async () => (await fleet.ask<Shown>(["devices", "show", "pi-far"])).health
    )
    expect(report.configuration_digest).toMatch(/^sha256:/)
  })

  it("lets somebody without a key no further than to the door for newcomers", async () => {
    await fleet.ask(["invite", "--name", "pi-next"])
    const nickname = `somebody-${randomBytes(4).toString("hex")}`
    const socks = join(network.folder, nickname, "socks")
    const lines = [...network.options, `SocksPort unix:${socks} ExtendedErrors`]
    await inScope(startLabNode({ folder: network.folder, command: ["tor"] }, nickname, lines))
    const transport = await inScope(
      httpTransport({ routes: { to: () => Effect.succeed({ _tag: "Tor", endpoint: { path: socks } }) } })
    )
    const get = (origin: string, path: string) =>
      transport
        .send({
          origin,
          authority: new URL(origin).host,
          method: "GET",
          path,
          query: "",
          headers: {},
          body: new Uint8Array(0),
          responseTimeoutMs: 60_000
        })
        .pipe(
          Effect.map(({ status }) => status),
          Effect.catch((error) => Effect.succeed(error)),
          Effect.scoped,
          Effect.runPromise
        )
    const [open, closed] = [identity.enrol_addresses[0] as string, identity.addresses[0] as string]
    const isNewcomer = async () => (await get(open, "/api/device/v1/identity")) === 200
    await waitUntil("the door for newcomers", isNewcomer, patienceMs)
    const answered = async () => {
      const status = await get(open, "/api/device/v1/poll")
      return typeof status === "number" && status
    }
    expect(await waitUntil("an answer", answered, patienceMs)).toBe(404)
    // A circuit may break on the way there; a status would be an answer of the server.
    await waitUntil(
      "the refusal",
      async () => {
        const refused = await get(closed, "/api/device/v1/identity")
        expect(refused).toBeInstanceOf(TransportError)
        return refused instanceof TransportError && refused.code === "onion_not_authorised"
      },
      patienceMs
    )
  }, 600_000)

  it("works again by itself after kill -9 of either tor and of the server", async () => {
    const torOf = (folder: string) => Number(readFileSync(torPaths(folder).pid, "utf8"))
    const faults: Readonly<Record<string, () => Promise<void> | void>> = {
      device: () => void process.kill(torOf(join(device.state, "tor")), "SIGKILL"),
      service: () => void process.kill(torOf(join(fleet.serverFolder, "onion", "tor")), "SIGKILL"),
      server: async () => {
        await fleet.server.crash()
        await fleet.startServer()
      }
    }
    for (const [name, fault] of Object.entries(faults)) {
      await fault()
      const ended = await fleet.postern(["run", "pi-far", "--", "echo", name], { timeoutMs: patienceMs })
      expect(ended.stdout, ended.stderr).toContain(name)
    }
  }, 600_000)
})

/** Closes all circuits that lead to the server; says how many. */
const closeCircuits = async (control: TorControl): Promise<number> => {
  const status = await Effect.runPromise(torInfo(control, "circuit-status"))
  const circuits = status.split("\n").flatMap((line) => {
    const [id = ""] = line.split(" ")
    return line.includes(" PURPOSE=HS_CLIENT_REND ") ? [id] : []
  })
  for (const id of circuits) await Effect.runPromise(Effect.ignore(control.send(`CLOSECIRCUIT ${id}`)))
  return circuits.length
}

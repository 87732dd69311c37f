/**
 * Who may reach the server through Tor: devices that are accepted, by keys of their own and by shared ones, and nobody who
 * was turned away, over no circuit at all. With the programs as they are shipped, and two keys of devices' own at the most.
 */
import { createHash, randomBytes } from "node:crypto"
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Effect, Exit, Scope, Stream } from "effect"
import { afterAll, beforeAll, expect, it } from "vitest"
import { httpTransport } from "../../src/adapters/HttpTransport.ts"
import type { Transport } from "../../src/adapters/http/Transport.ts"
import { NativeCryptoEngine } from "../../src/adapters/NativeCrypto.ts"
import { loadNodeKeys, type NodeKeyRing } from "../../src/adapters/NodeKeys.ts"
import { SystemEntropy } from "../../src/adapters/SystemEntropy.ts"
import { connectControl, type TorControl, torInfo } from "../../src/adapters/tor/TorControl.ts"
import { torPaths } from "../../src/adapters/tor/Torrc.ts"
import { type BuiltDevice, BuiltFleet } from "../support/BuiltFleet.ts"
import { signedRequest } from "../support/fleet.ts"
import { waitUntil } from "../support/Program.ts"
import { describeWith } from "../support/requires.ts"
import { type KnownTorNetwork, onionSettings, ownTorNetwork, torSettings } from "../support/torNetwork.ts"

const payloadBytes = 24 * 1024 * 1024
/** A circuit that is dead costs up to a minute. */
const patienceMs = 120_000

interface Service {
  readonly service: string
  readonly authorised: number | null
  readonly uploads: number
}

const seconds = (sinceMs: number): string => ((performance.now() - sinceMs) / 1000).toFixed(1)

describeWith(["tor", "tor-gencert", "jail"], "devices that the onion service knows by their keys", () => {
  let network: KnownTorNetwork
  let fleet: BuiltFleet
  let stop: (() => Promise<void>) | undefined
  let origin: string
  let first: BuiltDevice
  let second: BuiltDevice
  let third: BuiltDevice
  let fourth: BuiltDevice
  const scope = Scope.makeUnsafe()
  const inScope = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) =>
    Effect.runPromise(Scope.provide(effect, scope))

  const settings = () => ({ server: null, settings: torSettings(network, "always") })
  const service = async (): Promise<Service> => {
    type Status = { readonly onion: { readonly services: ReadonlyArray<Service> } }
    const { onion } = await fleet.ask<Status>(["status"])
    return onion.services.find((each) => each.service === "device") as Service
  }
  /** The list as tor has it: names of its files. */
  const listed = (): ReadonlySet<string> =>
    new Set(readdirSync(join(fleet.serverFolder, "onion/services/device/authorized_clients")))
  /** Waits until the list is another, and directories have it. */
  const changedFrom = async (before: ReadonlySet<string>, sinceUploads: number) => {
    await waitUntil(
      "another list",
      () => [...listed()].some((name) => !before.has(name)) || listed().size !== before.size
    )
    await waitUntil("its descriptor", async () => (await service()).uploads > sinceUploads, patienceMs)
  }

  beforeAll(async () => {
    const own = await ownTorNetwork()
    network = own.network
    stop = own.stop
    fleet = await BuiltFleet.withServer({
      serverSettings: [...onionSettings(network), "maximum_clients = 2"]
    })
    const answer = await fetch(`${fleet.address}/api/device/v1/identity`)
    origin = ((await answer.json()) as { addresses: ReadonlyArray<string> }).addresses[0] as string
  })
  afterAll(async () => {
    await Effect.runPromise(Scope.close(scope, Exit.void))
    await fleet?.close()
    await stop?.()
  })

  const admit = async (name: string): Promise<BuiltDevice> => {
    const { invitation } = await fleet.ask<{ invitation: string }>(["invite", "--name", name])
    const device = fleet.device(name, invitation, settings())
    device.program.start()
    const id = await fleet.waiting(device)
    const acceptedAt = performance.now()
    await fleet.ask(["devices", "accept", id])
    await fleet.takesWork(device)
    process.stdout.write(`${name}: polls ${seconds(acceptedAt)} s after it was accepted\n`)
    return device
  }

  it("let those in who are accepted, within seconds and without a restart", async () => {
    ;[first, second] = await Promise.all([admit("pi-one"), admit("pi-two")])
    expect((await service()).authorised).toBe(2)
  })

  /** Sends as the device does, with its keys and through its own tor, over a circuit of the test's. */
  const impersonate = async (device: BuiltDevice) => {
    // The device has become another user, and its key file is for its owner's eyes.
    const copy = join(fleet.folder, `keys-of-${device.name}`)
    mkdirSync(join(copy, "keys"), { recursive: true, mode: 0o700 })
    writeFileSync(join(copy, "keys/node.json"), readFileSync(join(device.state, "keys/node.json")), {
      mode: 0o600
    })
    const keys: NodeKeyRing = await Effect.runPromise(
      loadNodeKeys({ stateFolder: copy, kind: "device" }).pipe(
        Effect.provide([NativeCryptoEngine, SystemEntropy])
      )
    )
    const paths = torPaths(join(device.state, "tor"))
    const control = await inScope(connectControl({ endpoint: { path: paths.control } }))
    const endpoint = { path: paths.socks }
    const transport = await inScope(
      httpTransport({ routes: { to: () => Effect.succeed({ _tag: "Tor", endpoint } as const) } })
    )
    return { keys, control, transport }
  }

  const ask = (transport: Transport, by: NodeKeyRing, path: string, circuit: string) => {
    const authority = new URL(origin).host
    const request = signedRequest(Date.now(), "GET", path, { by, authority, octets: new Uint8Array(0) })
    return transport.send({ ...request, origin, circuit, responseTimeoutMs: 60_000 })
  }

  /**
   * What a device does that is let in: a directory may hold an older list still, and tor looks at another one after NEWNYM;
   * a circuit may break on the way there. Only for the first request, before anybody is revoked.
   */
  const askLetIn = (
    transport: Transport,
    control: TorControl,
    by: NodeKeyRing,
    path: string,
    circuit: string
  ) =>
    ask(transport, by, path, circuit).pipe(
      Effect.tapError(({ code }) =>
        Effect.andThen(
          code === "onion_not_authorised" ? control.send("SIGNAL NEWNYM") : Effect.void,
          Effect.sleep(1_000)
        )
      ),
      Effect.retry({ times: 30 })
    )

  const circuitsToServer = async (control: TorControl): Promise<ReadonlySet<string>> => {
    const status = await Effect.runPromise(torInfo(control, "circuit-status"))
    const lines = status
      .split("\n")
      .filter((line) => / BUILT .*PURPOSE=HS_CLIENT_REND .*HS_STATE=HSCR_JOINED/.test(line))
    return new Set(lines.map((line) => line.split(" ")[0] as string))
  }

  it("give one that is revoked nothing more, though its circuit stays open", async () => {
    const folder = join(fleet.folder, "large")
    mkdirSync(folder)
    writeFileSync(join(folder, "data"), randomBytes(payloadBytes))
    writeFileSync(join(folder, "postern.json"), JSON.stringify({ command: ["true"] }))
    const file = join(fleet.folder, "large.postern")
    await fleet.ask(["package", "build", folder, "--device", "pi-one", "-o", file])
    // The lane is busy, so that the large one stays unfinished and may be fetched.
    const { job: busy } = await fleet.ask<{ job: string }>([
      "run",
      "pi-one",
      "--detach",
      "--",
      "sleep",
      "600"
    ])
    await fleet.job(busy, ["running"])
    await fleet.ask(["jobs", "submit", file, "--device", "pi-one", "--yes"])
    const digest = `sha256:${createHash("sha256").update(readFileSync(file)).digest("hex")}`
    const { control, keys, transport } = await impersonate(first)
    const path = `/payloads/${digest}`

    // A connection that was used and is kept, and a download in the middle of which the reader pauses.
    const kept = await Effect.runPromise(
      Effect.scoped(Effect.map(askLetIn(transport, control, keys, path, "kept"), ({ status }) => status))
    )
    expect(kept).toBe(200)
    let receivedBytes = 0
    let isRevoked = false
    const download = inScope(
      Effect.flatMap(askLetIn(transport, control, keys, path, "download"), ({ body }) =>
        Effect.result(
          Stream.runForEach(body, (part) => {
            receivedBytes += part.length
            const wait = (): Promise<void> =>
              isRevoked ? Promise.resolve() : new Promise((resolve) => setTimeout(resolve, 20)).then(wait)
            return receivedBytes > 300_000 ? Effect.promise(wait) : Effect.void
          })
        )
      )
    )
    await waitUntil("a part of the payload", () => receivedBytes > 300_000, patienceMs)
    const circuits = await circuitsToServer(control)
    const before = { list: listed(), uploads: (await service()).uploads }

    const revokedAt = performance.now()
    await fleet.ask(["devices", "revoke", "pi-one", "--yes"])
    isRevoked = true
    expect((await download)._tag).toBe("Failure")
    process.stdout.write(
      `revoked: the download ended ${seconds(revokedAt)} s later, at ${receivedBytes} bytes\n`
    )
    expect(receivedBytes).toBeLessThan(payloadBytes)
    // Where the idle connection has ended in the meantime, the device finds the service no more.
    const asked = Effect.suspend(() =>
      Effect.scoped(
        Effect.flatMap(ask(transport, keys, path, "kept"), (answer) =>
          Effect.map(Stream.runCollect(answer.body), (parts) => [
            answer.status,
            JSON.parse(Buffer.concat([...parts]).toString()).error
          ])
        )
      )
    ).pipe(
      Effect.catch((error) =>
        error.code === "onion_not_authorised" ? Effect.succeed(error.code) : Effect.fail(error)
      ),
      // The kept connection may be cut just now: whatever answers then is what counts.
      Effect.retry({ times: 5 })
    )
    const nothing = [[403, "revoked"], "onion_not_authorised"]
    expect(nothing).toContainEqual(await Effect.runPromise(asked))
    const isTold = () => first.program.log().includes("an operator's decision: revoke")
    await waitUntil("the device's word", isTold, patienceMs)
    process.stdout.write(`revoked: the device knew it within ${seconds(revokedAt)} s\n`)
    await changedFrom(before.list, before.uploads)
    process.stdout.write(`revoked: its key was off the published list within ${seconds(revokedAt)} s\n`)
    expect((await service()).authorised).toBe(1)
    // The circuit is there as before, and of no use.
    const still = await circuitsToServer(control)
    expect([...circuits].some((id) => still.has(id))).toBe(true)
    expect(nothing).toContainEqual(await Effect.runPromise(asked))
  })

  it("share a key where there are more of them than places, and get another when one of them is revoked", async () => {
    // The place of the revoked one is free again; the fourth and the fifth share.
    const fifth = await admit("pi-three")
    ;[third, fourth] = await Promise.all([admit("pi-four"), admit("pi-five")])
    const shared = (device: BuiltDevice) =>
      device.program.log().split("the group's key to the onion service is here").length - 1
    await waitUntil("the shared key", () => shared(third) > 0 && shared(fourth) > 0, patienceMs)
    expect(shared(second) + shared(fifth)).toBe(0)

    const before = { list: listed(), uploads: (await service()).uploads }
    const revokedAt = performance.now()
    await fleet.ask(["devices", "revoke", "pi-four", "--yes"])
    await waitUntil("another shared key", () => shared(fourth) > 1, patienceMs)
    process.stdout.write(`a member was revoked: the other had another key within ${seconds(revokedAt)} s\n`)
    await changedFrom(before.list, before.uploads)
    const ended = await fleet.postern(["run", "pi-five", "--", "echo", "here"])
    expect(ended.stdout, ended.stderr).toBe("here\n")
  })
})

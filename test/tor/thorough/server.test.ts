/** The built server as onion services: what each serves, and what is left of it when the program is killed. */
import { existsSync, readFileSync, rmSync } from "node:fs"
import { join } from "node:path"
import { afterAll, beforeAll, expect, it } from "vitest"
import { OnionHost } from "../../../src/schemas/Onion.ts"
import type { OnionStatus } from "../../../src/schemas/OnionStatus.ts"
import { BuiltFleet } from "../../support/BuiltFleet.ts"
import { TestClient } from "../../support/onions.ts"
import { waitUntil } from "../../support/Program.ts"
import { describeWith } from "../../support/requires.ts"
import { onionSettings, sharedTorNetwork } from "../../support/torNetwork.ts"

interface Identity {
  readonly addresses: ReadonlyArray<string>
  readonly enrol_addresses: ReadonlyArray<string>
}

const isAlive = (pid: number): boolean => {
  try {
    return !readFileSync(`/proc/${pid}/stat`, "utf8").includes(") Z ")
  } catch {
    return false
  }
}

describeWith(["tor", "tor-gencert"], "the built server over Tor", () => {
  let fleet: BuiltFleet
  const stranger = new TestClient()

  const torPidFile = (): string => join(fleet.serverFolder, "onion", "tor", "pid")
  const torPid = (): number => Number(readFileSync(torPidFile(), "utf8"))
  const identity = async (): Promise<Identity> =>
    (await fetch(`${fleet.address}/api/device/v1/identity`)).json() as Promise<Identity>
  const hostOf = (addresses: ReadonlyArray<string>): OnionHost =>
    OnionHost.make(new URL(addresses[0] ?? "").host)
  const services = async () => (await fleet.ask<{ readonly onion: OnionStatus }>(["status"])).onion.services
  const descriptorOf = async (name: string) =>
    (await services()).find(({ service }) => service === name)?.descriptor
  const published = (...names: ReadonlyArray<string>) =>
    waitUntil(
      `${names.join(" and ")} to be published`,
      async () => {
        const there = (await services()).filter(({ descriptor }) => descriptor === "published")
        return names.every((name) => there.some(({ service }) => service === name))
      },
      90_000,
      () => fleet.server.log()
    )

  beforeAll(async () => {
    const network = await sharedTorNetwork()
    const settings = [...onionSettings(network), "management = true"]
    const opening = stranger.open(network.options)
    fleet = await BuiltFleet.withServer({ serverSettings: settings })
    await opening
  })
  afterAll(async () => {
    await Promise.all([fleet?.close(), stranger.stop()])
  })

  it("shows newcomers nothing but enrolment, and only once somebody is invited", async () => {
    const { enrol_addresses } = await identity()
    await published("device", "management")
    expect(await descriptorOf("enrol")).toBe("off")
    const { invitation } = await fleet.ask<{ invitation: string }>(["invite", "--name", "pi-new"])
    const inside = JSON.parse(
      Buffer.from(invitation.replace("postern-invite-v1.", ""), "base64url").toString()
    )
    expect(inside.enrol_addresses).toEqual(enrol_addresses)
    await published("enrol")
    const host = hostOf(enrol_addresses)
    expect(await stranger.json(host, "/")).toMatchObject({ code: "no_such_path" })
    expect(await stranger.json(host, "/api/device/v1/identity")).toMatchObject({ enrol_addresses })
    for (const path of [
      "/api/management/v1/status",
      "/metrics",
      "/openapi.json",
      "/api/device/v1/payloads/x"
    ])
      expect(await stranger.json(host, path), path).toMatchObject(
        path.startsWith("/api/device") ? { error: "not_found" } : { code: "no_such_path" }
      )
  })

  it("serves management, and nothing of devices, at the address of its own", async () => {
    const management = (await services()).find(({ service }) => service === "management")
    const host = hostOf([management?.address ?? ""])
    expect(await stranger.json(host, "/api/management/v1/status")).toMatchObject({
      _tag: "Unauthorized"
    })
    expect(await stranger.json(host, "/api/device/v1/identity")).toMatchObject({
      type: "postern/server-identity/v1"
    })
  })

  it("takes tor along when it is killed, and comes back under the same addresses", async () => {
    const before = await identity()
    const pid = torPid()
    fleet.server.signal("SIGKILL")
    await fleet.server.ended()
    await waitUntil("the end of tor", () => !isAlive(pid))
    await fleet.startServer()
    expect(await identity()).toEqual(before)
    // The server answers before its tor has written down its number, and an older number may be there until then.
    await waitUntil("another tor", () => {
      const next = existsSync(torPidFile()) ? torPid() : 0
      return next !== 0 && next !== pid && isAlive(next)
    })
    await published("device", "enrol")
    await stranger.renew()
    expect(await stranger.isShutOut(hostOf(before.addresses), /^\{/)).toBe(true)
  })

  it("has the same addresses when it is restored from a backup", async () => {
    const state = join(fleet.folder, "restored")
    const backup = join(fleet.folder, "backup")
    const run = (...args: ReadonlyArray<string>) => fleet.run("server", args)
    expect((await run("backup", backup, "--state", fleet.serverFolder)).code).toBe(0)
    expect((await run("restore", backup, "--state", state)).code).toBe(0)
    const shown = await run("identity", "--onion", "--state", state)
    expect(JSON.parse(shown.stdout)).toEqual(await identity())
    rmSync(backup, { recursive: true })
  })
})

/** The server's onion services in a real network: who finds them, who gets in, and what attempts do not open them. */
import { readFileSync, rmSync } from "node:fs"
import { join } from "node:path"
import { Effect } from "effect"
import { afterAll, beforeAll, expect, it } from "vitest"
import { onionConfig, TestClient, TestServices } from "../../support/onions.ts"
import { waitUntil } from "../../support/Program.ts"
import { describeWith } from "../../support/requires.ts"
import { sharedTorNetwork } from "../../support/torNetwork.ts"

describeWith(["tor", "tor-gencert"], "the server's onion services", () => {
  let server: TestServices
  const friend = new TestClient()
  const stranger = new TestClient()

  beforeAll(async () => {
    const { options } = await sharedTorNetwork()
    server = new TestServices(onionConfig({ options }))
    await server.openDoors()
    await Promise.all([server.open(), friend.open(options), stranger.open(options)])
  })
  afterAll(async () => {
    await Promise.all([server?.stop(), friend.stop(), stranger.stop()])
  })

  const tunnelOf = ({ services }: TestServices) => Effect.runPromise(services.tunnel)
  const listOfDevice = (): string => join(server.folder, "onion", "services", "device", "authorized_clients")

  it("are shut before anybody was named, then let in who was, and nobody else", async () => {
    const { device } = server.hosts
    expect((await server.statusOf("device")).descriptor).toBe("off")
    await server.setClients()
    await server.published("device")
    expect(readFileSync(join(server.folder, "onion/services/device/hostname"), "utf8").trim()).toBe(device)
    expect(await stranger.isShutOut(device, /^device$/)).toBe(true)

    const { uploads } = await server.statusOf("device")
    const key = await friend.key(device)
    await server.setClients(key)
    await server.published("device", uploads)
    await friend.until(device, "device")
    expect(await stranger.isShutOut(device, /^device$/)).toBe(true)
    const status = await waitUntil("its circuits", async () => {
      const now = await server.statusOf("device")
      // Nothing is known of circuits where tor does not answer in time.
      return now.circuits !== null && now
    })
    expect(status.authorised).toBe(1)
    expect(status.introduction_points).toBeGreaterThan(0)
    expect(status.circuits).toBeGreaterThan(0)
    expect(await tunnelOf(server)).toMatchObject({ phase: "ready", progress: 100 })
  })

  it("stay shut when the list is deleted under a running tor and tor reads it anew", async () => {
    const { device } = server.hosts
    const { uploads } = await server.statusOf("device")
    rmSync(listOfDevice(), { recursive: true })
    process.kill(server.pid, "SIGHUP")
    await server.published("device", uploads)
    await stranger.renew()
    expect(await stranger.isShutOut(device, /^device$/)).toBe(true)
    await friend.until(device, "device")
  })

  it("let newcomers in only while enrolment is open", async () => {
    const { enrol } = server.hosts
    await stranger.until(enrol, "onion_not_found")
    await server.publishEnrolment(true)
    await server.published("enrol")
    // tor asks no directory twice within a quarter of an hour unless it is told to forget.
    await stranger.renew()
    await stranger.until(enrol, "enrol")
    await server.publishEnrolment(false)
    expect((await server.statusOf("enrol")).descriptor).toBe("off")
    await stranger.renew()
    await waitUntil(
      "the closed service",
      async () => (await stranger.get(enrol, "/", 30_000)) !== "enrol",
      90_000
    )
  })

  it("shut out who is taken off the list, and come back under the same addresses when tor is killed", async () => {
    const { device } = server.hosts
    const before = server.pid
    process.kill(before, "SIGKILL")
    expect(await Effect.runPromise(server.services.ended)).toMatch(/ended|killed|SIGKILL|closed/)
    await server.close()
    await server.open()
    expect(server.hosts.device).toBe(device)
    const key = await friend.key(device)
    await server.setClients(key)
    await server.published("device")
    await friend.until(device, "device")
    const { uploads } = await server.statusOf("device")
    await server.setClients()
    await server.published("device", uploads)
    await friend.untilShutOut(device)
  })

  it("are given to a tor that runs already too, under the same rules", async () => {
    const { options } = await sharedTorNetwork()
    const lender = new TestClient()
    await lender.open(options)
    const guest = new TestServices(onionConfig({ control: `unix:${lender.controlSocket}` }))
    await guest.openDoors()
    await guest.open()
    const { device } = guest.hosts
    await guest.setClients()
    await guest.published("device")
    expect(await stranger.isShutOut(device, /^device$/)).toBe(true)
    const { uploads } = await guest.statusOf("device")
    await guest.setClients(await friend.key(device))
    await guest.published("device", uploads)
    await friend.until(device, "device")
    expect(await tunnelOf(guest)).toBeNull()
    await guest.stop()
    await lender.stop()
  })
})

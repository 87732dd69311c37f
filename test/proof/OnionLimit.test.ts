/**
 * How many keys a real tor puts into the list of an onion service before directories refuse its descriptor, and that the
 * limit we set ourselves stays well below.
 */
import { randomBytes } from "node:crypto"
import { Redacted } from "effect"
import { afterAll, beforeAll, expect, it } from "vitest"
import { NativeCrypto } from "../../src/adapters/NativeCrypto.ts"
import { onionKeyOf } from "../../src/crypto/OnionKeys.ts"
import { Limits } from "../../src/schemas/Limits.ts"
import { onionConfig, TestClient, TestServices } from "../support/onions.ts"
import { waitUntil } from "../support/Program.ts"
import { describeWith } from "../support/requires.ts"
import { ownTorNetwork } from "../support/torNetwork.ts"

const strangers = (count: number) =>
  Array.from({ length: count }, () => onionKeyOf(NativeCrypto, Redacted.make(randomBytes(32))))

/** A list that is taken is so within two seconds on an idle machine. One that must be has longer. */
const patienceMs = 8_000
const longPatienceMs = 60_000
const quietMs = 2_000

/** What else a descriptor may come to hold on a public network: two introduction points more, with IPv6 addresses. */
const marginKeys = 32

describeWith(["tor", "tor-gencert"], "the list of an onion service", () => {
  const client = new TestClient()
  let server: TestServices
  let stop: () => Promise<void>

  beforeAll(async () => {
    const own = await ownTorNetwork()
    stop = own.stop
    server = new TestServices(onionConfig({ options: own.network.options }))
    await server.openDoors()
    await Promise.all([server.open(), client.open(own.network.options)])
    await server.setClients()
    await server.published("device")
  })
  afterAll(async () => {
    await Promise.all([server?.stop(), client.stop()])
    await stop?.()
  })

  /** Waits until no upload has ended for a while, and gives how many there were. */
  const settledUploads = async (): Promise<number> => {
    let last = -1
    let since = performance.now()
    await waitUntil("the end of the uploads", async () => {
      const { uploads } = await server.statusOf("device")
      if (uploads !== last) since = performance.now()
      last = uploads
      return performance.now() - since > quietMs
    })
    return last
  }

  /** Whether tor makes a descriptor with so many keys and directories take it. What is too large it does not even send. */
  const isTaken = async (count: number, withinMs = patienceMs): Promise<boolean> => {
    const before = await settledUploads()
    await server.setClients(...strangers(count))
    const taken = async () => (await server.statusOf("device")).uploads > before
    return waitUntil(`a list of ${count} keys`, taken, withinMs).then(
      () => true,
      () => false
    )
  }

  it("is taken by directories up to some number of keys, which is well above ours", async () => {
    // The key nobody owns comes on top of each list.
    let taken: number = Limits.onionKeys + marginKeys
    let refused = 2 * Limits.onionKeys
    expect(await isTaken(taken, longPatienceMs)).toBe(true)
    expect(await isTaken(refused)).toBe(false)
    while (refused - taken > 1) {
      const middle = (taken + refused) >> 1
      if (await isTaken(middle)) taken = middle
      else refused = middle
    }
    console.log(
      `an onion service's list held ${taken + 1} keys; with ${refused + 1} directories refused it; ours holds at most ${Limits.onionKeys}`
    )
  })

  it("lets a device in that stands among as many others as ours may hold", async () => {
    const { device } = server.hosts
    const key = await client.key(device)
    const uploads = await settledUploads()
    await server.setClients(key, ...strangers(Limits.onionKeys - 1))
    await server.published("device", uploads)
    await client.renew()
    await client.until(device, "device")
  })
})

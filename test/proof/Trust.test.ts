/**
 * The page on trust, followed from its first command to its last, beside a real server and a real device: operators come
 * and go, a key is lost, orders of the past are refused, and a team takes over.
 */
import { mkdirSync } from "node:fs"
import { join } from "node:path"
import { afterAll, beforeAll, expect, it } from "vitest"
import { type BuiltDevice, BuiltFleet, type JobDocument } from "../support/BuiltFleet.ts"
import { waitUntil } from "../support/Program.ts"
import { describeWith } from "../support/requires.ts"
import { blocksOfPage, TrustPage } from "../support/TrustPage.ts"

let fleet: BuiltFleet
let page: TrustPage

beforeAll(async () => {
  fleet = await BuiltFleet.create()
  await fleet.startServer()
  page = new TrustPage(fleet)
  mkdirSync(join(fleet.folder, "stick"))
  page.values.set("/media/stick", join(fleet.folder, "stick"))
  page.values.set("https://postern.example", fleet.address)
  page.values.set("admin-token", await fleet.token("anna", "admin"))
})
afterAll(() => fleet.close())

interface RootDocument {
  readonly first_digest: string
  readonly root: {
    readonly version: number
    readonly roles: Readonly<
      Record<"root" | "operators", { readonly keys: ReadonlyArray<string>; readonly threshold: number }>
    >
  }
  readonly laggards: { readonly count: number } | null
}

const rootOf = (person: string) =>
  fleet.ask<RootDocument>(["keys", "root", "show"], { env: { POSTERN_HOME: page.home(person) } })

/** Waits until no device lags behind a version. */
const reached = (person: string, version: number) =>
  waitUntil(`the device to reach version ${version}`, async () => {
    const { laggards, root } = await rootOf(person)
    return root.version === version && laggards?.count === 0
  })

describeWith(["jail", "bash"], "the page on trust", () => {
  it("says on whose machine each of its blocks is typed", () => {
    expect(new Set(blocksOfPage().map(({ person }) => person))).toEqual(
      new Set(["anna", "bea", "server", "anna-2", "offline-1", "offline-2", "offline-3"])
    )
  })

  let device: BuiltDevice

  it("one person, then two: who was added gives work to a device that the other let in", async () => {
    await page.run("One person, one machine")
    device = await fleet.acceptedDevice("pi-cellar")
    page.values.set("sha256:THE-DIGEST-OF-THE-FIRST-ROOT", (await rootOf("anna")).first_digest)
    const listed = (await page.run("A second operator")).at(-1)
    expect(listed?.stderr).toContain("anna accepted pi-cellar; it stands in your device book now.")
    expect(listed?.stdout).toMatch(/pi-cellar .*accepted/)
    await reached("bea", 2)
  })

  it("a lost key is replaced with the recovery key; what it signs afterwards is refused", async () => {
    await page.run("The everyday key is lost")
    const stolen = await page.type("anna", "postern run pi-cellar -- true")
    expect(stolen.code).toBe(1)
    expect(stolen.stderr).toMatch(/Took in version 3 of the trust root/)
    expect(stolen.stderr).toMatch(/key_\w+ is no operator any more since the trust root 3/)
    // Nor does it make roots any more.
    const usurped = await page.type("anna", "postern keys renew")
    expect(usurped.stderr).toMatch(/is a root key neither of version 3 nor of version 4.*Nothing was signed/)
  })

  it("a revoked operator's queued order is refused by the device, which signs that it did", async () => {
    await device.program.stop(60_000)
    const queued = await page.type("bea", "postern run pi-cellar --detach --json -- true")
    expect(queued.code, queued.stderr).toBe(0)
    const { job } = JSON.parse(queued.stdout) as { readonly job: string }
    await page.run("Revoking an operator", "Before it expires")
    expect((await rootOf("anna-2")).laggards?.count).toBe(1)
    device.program.start()
    const env = { POSTERN_HOME: page.home("anna-2") }
    const shown = await waitUntil("the device's refusal", async () => {
      const document = await fleet.ask<JobDocument>(["jobs", "show", job], { env })
      return document.verified ? document : undefined
    })
    expect(shown).toMatchObject({
      state: "rejected",
      receipt: { reason: "unknown_key", root_version: 5 },
      alarms: []
    })
    await reached("anna-2", 5)
  })

  it("a team takes over: two of three sign, on machines without a network, and replace a lost key", async () => {
    await page.run("A team with offline keys")
    expect((await rootOf("anna-2")).root.roles.root).toMatchObject({ threshold: 2 })
    const alone = await page.type("anna-2", "postern keys renew --expires 500d")
    expect(alone.stderr).toMatch(/is a root key neither of version 7 nor of version 8/)
    await page.run("One of the team's keys is lost", "Servers")
    const { root } = await rootOf("anna-2")
    expect(root).toMatchObject({ version: 8, roles: { root: { threshold: 2 }, operators: { threshold: 1 } } })
    await reached("anna-2", 8)
    const work = await page.type("anna-2", "postern run pi-cellar -- true")
    expect(work.code, work.stderr).toBe(0)
  })
})

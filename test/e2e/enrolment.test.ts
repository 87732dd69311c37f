/** How devices come in, and how they don't. */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type BuiltDevice, BuiltFleet } from "../support/BuiltFleet.ts"
import { waitUntil } from "../support/Program.ts"
import { describeWith } from "../support/requires.ts"
import { atTerminal } from "../support/terminal.ts"

let fleet: BuiltFleet

beforeAll(async () => {
  fleet = await BuiltFleet.withServer()
})
afterAll(() => fleet?.close())

/** The claim code as the device itself shows it. */
const shownCode = (device: BuiltDevice): Promise<string> =>
  waitUntil(
    "the device's claim code",
    () => /[A-Z2-7]{4}-[A-Z2-7]{4}-[A-Z2-7]{4}-[A-Z2-7]{4}/.exec(device.program.log())?.[0],
    60_000,
    () => device.program.log()
  )

const started = async (name: string, invitation: string | null): Promise<readonly [BuiltDevice, string]> => {
  const device = fleet.device(name, invitation)
  device.program.start()
  return [device, await fleet.waiting(device)]
}

describe("enrolment by claim code", () => {
  it("needs the code that the device shows, and the right one", async () => {
    const [device, id] = await started("pi-claim", null)
    const code = await shownCode(device)
    expect(await fleet.ask(["devices", "show", id])).toMatchObject({ status: "pending", claim_code: code })
    const silent = await fleet.postern(["devices", "accept", id])
    expect(silent).toMatchObject({ code: 2, stdout: "" })
    expect(silent.stderr).toMatch(/claim code.*--claim-code CODE/)
    const wrong = await fleet.postern(["devices", "accept", id, "--claim-code", "AAAA-BBBB-CCCC-DDDD"])
    expect(wrong.code).toBe(1)
    expect(wrong.stderr).toMatch(/is not that of dev_.*Nothing was signed/)
    expect(await fleet.ask(["devices", "show", id])).toMatchObject({
      status: "pending",
      in_device_book: null
    })
    const accepted = await fleet.ask([
      "devices",
      "accept",
      id,
      "--claim-code",
      code.toLowerCase().replaceAll("-", " ")
    ])
    expect(accepted).toMatchObject({ name: "pi-claim", by: "claim code", new_ledger: false })
    await fleet.takesWork(device)
  })
})

describeWith(["python3"], "enrolment by claim code, at a terminal", () => {
  it("asks for the code", async () => {
    const [device, id] = await started("pi-typed", null)
    const code = await shownCode(device)
    const command = [process.execPath, `${import.meta.dirname}/../../dist/cli.js`, "devices", "accept", id]
    const env = { PATH: "/usr/bin:/bin", HOME: fleet.folder, POSTERN_HOME: fleet.operatorFolder }
    const { code: exit, screen } = await atTerminal(command, env, [
      ["claim code that the device shows: ", `${code}\r`]
    ])
    expect(exit, screen).toBe(0)
    await fleet.takesWork(device)
  })
})

describe("enrolment by invitation", () => {
  it("needs no code, names the device as the invitation says, and takes work", async () => {
    const device = await fleet.acceptedDevice("pi-invited")
    expect(await fleet.ask(["devices", "show", "pi-invited"])).toMatchObject({
      status: "accepted",
      in_device_book: "accepted"
    })
    expect(device.program.log()).not.toMatch(/[A-Z2-7]{4}-[A-Z2-7]{4}-[A-Z2-7]{4}/)
  })

  it("of a stranger who made the invitation up is decided by the code alone", async () => {
    const { invitation } = await fleet.ask<{ invitation: string }>(["invite", "--name", "pi-real"])
    const prefix = "postern-invite-v1."
    const content = JSON.parse(Buffer.from(invitation.slice(prefix.length), "base64url").toString())
    const forged = { ...content, secret: "a".repeat(32) }
    const text = `${prefix}${Buffer.from(JSON.stringify(forged)).toString("base64url")}`
    const device = fleet.device("pi-forged", text)
    device.program.start()
    // The server knows no such invitation, or lets the operator decide: in no case is it accepted without the code.
    await waitUntil(
      "the server's answer",
      async () => {
        const { devices } = await fleet.ask<{ devices: ReadonlyArray<{ status: string }> }>([
          "devices",
          "list"
        ])
        return devices.some(({ status }) => status === "pending") || /refus/i.test(device.program.log())
      },
      60_000,
      () => device.program.log()
    )
    const accepted = await fleet.postern(["devices", "accept", "--waiting"])
    expect(accepted.code).not.toBe(0)
    await device.program.stop()
  })
})

/** Waits until the operator's own book has a device that nobody accepted by hand. */
const comesIn = async (device: BuiltDevice): Promise<void> => {
  await waitUntil(
    `${device.name} to come in`,
    async () => (await fleet.postern(["devices", "show", device.name])).code === 0,
    60_000,
    () => device.program.log()
  )
  await fleet.takesWork(device)
}

describe("enrolment beforehand", () => {
  it("needs no further step; the device changes its key, and its name", async () => {
    const { invitation } = await fleet.ask<{ invitation: string }>([
      "invite",
      "--name",
      "pi-ahead",
      "--preauthorise"
    ])
    const device = fleet.device("pi-ahead", invitation)
    device.program.start()
    await comesIn(device)
    expect((await fleet.postern(["run", "pi-ahead", "--", "true"])).code).toBe(0)
    const rotated = await fleet.run("client", ["--state", device.state, "keys", "rotate"])
    expect(rotated.stdout).toMatch(/version 2 now: age1/)
    // Work ends the poll that is held open; the next one tells the new key.
    expect((await fleet.postern(["run", "pi-ahead", "--", "true"])).code).toBe(0)
    await waitUntil(
      "the new key in the device book",
      async () =>
        (await fleet.ask<{ key_version: number }>(["devices", "show", "pi-ahead"])).key_version === 2,
      120_000,
      () => device.program.log()
    )
    expect(await fleet.ask(["devices", "rename", "pi-ahead", "pi-aside"])).toMatchObject({ name: "pi-aside" })
    expect((await fleet.postern(["run", "pi-aside", "--", "true"])).code).toBe(0)
    await device.program.stop()
  })

  it("takes no device without a name, and no second one", async () => {
    expect((await fleet.postern(["invite", "--preauthorise"])).code).toBe(2)
    const { invitation } = await fleet.ask<{ invitation: string }>([
      "invite",
      "--name",
      "pi-once",
      "--preauthorise"
    ])
    const device = fleet.device("pi-once", invitation)
    device.program.start()
    await comesIn(device)
    const second = fleet.device("pi-twice", invitation)
    second.program.start()
    await fleet.waiting(second)
    await device.program.stop()
    await second.program.stop()
  })
})

describe("a device that is turned away", () => {
  it("gets no work and says why", async () => {
    const [device, id] = await started("pi-bad", null)
    expect(await fleet.ask(["devices", "reject", id, "--yes"])).toMatchObject({ status: "rejected" })
    const refused = await fleet.postern(["run", id, "--", "true"])
    expect(refused.code).toBe(1)
    expect(refused.stderr).toMatch(/was rejected\. Accept it again/)
    await waitUntil(
      "the device to know",
      () => /reject/i.test(device.program.log()),
      60_000,
      () => device.program.log()
    )
  })

  it("that was accepted before is revoked", async () => {
    const device = await fleet.acceptedDevice("pi-old")
    expect(await fleet.ask(["devices", "revoke", "pi-old", "--yes"])).toMatchObject({ status: "revoked" })
    expect(await fleet.ask(["devices", "show", "pi-old"])).toMatchObject({ status: "revoked" })
    await waitUntil(
      "the device to know",
      () => /revoke/i.test(device.program.log()),
      60_000,
      () => device.program.log()
    )
  })
})

describe("a client that starts before its server", () => {
  it("waits, and works once the server is there", async () => {
    const own = await BuiltFleet.create()
    try {
      const device = own.device("pi-early", null)
      device.program.start()
      await waitUntil(
        "a word that nothing answers",
        () => /not reached|unreachable/i.test(device.program.log()),
        60_000,
        () => device.program.log()
      )
      await own.startServer()
      await own.makeOperator()
      const id = await own.waiting(device)
      await own.ask(["devices", "accept", id, "--claim-code", await shownCode(device)])
      await own.takesWork(device)
      expect(device.program.isRunning()).toBe(true)
    } finally {
      await own.close()
    }
  })
})

import { chmodSync, chownSync, existsSync, readdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import type { Finding } from "../../src/schemas/Finding.ts"
import { BuiltFleet } from "../support/BuiltFleet.ts"
import { requires } from "../support/requires.ts"

interface Examination {
  readonly state: Finding["state"]
  readonly programs: ReadonlyArray<{
    readonly program: "device" | "server"
    readonly state: Finding["state"]
    readonly findings: ReadonlyArray<Finding>
  }>
}

describe("postern doctor", () => {
  let fleet: BuiltFleet

  beforeAll(async () => {
    fleet = await BuiltFleet.withServer()
  })
  afterAll(() => fleet?.close())

  /** What the doctor finds in a state folder, by id; its exit code must fit. */
  const examine = async (stateFolder: string, ...more: ReadonlyArray<string>) => {
    const ended = await fleet.postern(["doctor", "--state", stateFolder, "--json", ...more])
    const { programs, state } = JSON.parse(ended.stdout) as Examination
    expect(ended).toMatchObject({ code: state === "failed" ? 1 : 0, stderr: "" })
    expect(programs).toHaveLength(1)
    const findings = programs[0]?.findings ?? []
    for (const finding of findings) {
      expect(finding.reason, finding.id).not.toBe("")
      if (finding.state === "failed") expect(finding.mend, finding.id).not.toBe("")
    }
    return {
      program: programs[0]?.program,
      of: (id: string) => findings.find((one) => one.id === id),
      failed: findings.filter((one) => one.state === "failed").map(({ id }) => id)
    }
  }

  it("finds a running server good, and says what keeps others from reaching it", async () => {
    const { failed, of, program } = await examine(fleet.serverFolder)
    expect(program).toBe("server")
    expect(failed).toEqual([])
    expect(of("program.running")?.state).toBe("ok")
    expect(of("trust.root")?.reason).toMatch(/^version 1, good for \d+ days$/)
    expect(of("server.reached")?.reason).toBe(`${fleet.address} answers`)
    expect(of("access.tokens")?.state).toBe("ok")
    expect(of("trust.addresses")).toMatchObject({ state: "degraded" })
    expect(of("trust.addresses")?.mend).toContain("keys root draft")
    expect(of("network.exposure")?.state).toBe("degraded")
  })

  it("has the invitation warn where no other machine could use it", async () => {
    const json = await fleet.ask<{ readonly warnings: ReadonlyArray<string> }>(["invite"])
    expect(json.warnings).toHaveLength(1)
    const shown = await fleet.postern(["invite"])
    expect(shown.stderr).toMatch(
      /Warning: The trust root says that the server is at http:\/\/127\.0\.0\.1:\d+/
    )
  })

  it("looks at a device before it ever ran, while it runs, and after, and leaves no trace", async () => {
    const { invitation } = await fleet.ask<{ readonly invitation: string }>(["invite", "--name", "pi"])
    const device = fleet.device("pi", invitation)
    const before = await fleet.run("client", ["doctor", "--state", device.state, "--json"])
    expect(before.code, before.stdout).toBe(0)
    expect(existsSync(device.state)).toBe(false)

    device.program.start()
    await fleet.waiting(device)
    const pending = await examine(device.state)
    expect(pending.program).toBe("device")
    expect(pending.of("trust.enrolment")).toMatchObject({ state: "degraded" })
    expect(pending.of("trust.enrolment")?.reason).toMatch(/^not enrolled/)
    await fleet.ask(["devices", "accept", await fleet.waiting(device)])
    await fleet.takesWork(device)
    const accepted = await examine(device.state)
    expect(accepted.failed).toEqual([])
    expect(accepted.of("trust.enrolment")).toMatchObject({ state: "ok", reason: "accepted" })
    expect(accepted.of("server.reached")?.reason).toBe(`${fleet.address} answers`)
    expect(accepted.of("program.running")?.state).toBe("ok")
    expect(accepted.of("defence.umask")?.state).toBe("ok")
    expect(accepted.of("crypto.engine")?.reason).toMatch(/^node:crypto .*test passed$/)
    expect(accepted.of("service.systemd")?.mend).toContain("postern-client.service")

    await device.program.stop()
    const names = readdirSync(device.state).sort()
    const stopped = await examine(device.state)
    expect(readdirSync(device.state).sort()).toEqual(names)
    expect(stopped.of("program.running")).toMatchObject({ state: "degraded" })
    expect(stopped.of("trust.enrolment")).toMatchObject({ state: "ok", reason: "accepted" })
    expect(stopped.of("trust.root")?.state).toBe("ok")

    const keys = join(device.state, "keys", "node.json")
    chmodSync(keys, 0o644)
    chmodSync(device.state, 0o755)
    const open = await examine(device.state)
    expect(open.failed).toEqual(expect.arrayContaining(["state.folder", "state.keys"]))
    expect(open.of("state.keys")?.mend).toBe(`chmod 0600 ${keys}`)
    expect(open.of("state.folder")?.mend).toBe(`chmod 0700 ${device.state}`)
  })

  it("says what is wrong with a configuration, with what mends it, and shows it to people", async () => {
    const config = join(fleet.folder, "wrong.toml")
    writeFileSync(config, "prot = 1\n")
    const wrong = await examine(fleet.serverFolder, "--config", config)
    expect(wrong.of("configuration")?.reason).toBe(
      `${config}:1: prot: there is no such key; did you mean port?`
    )
    const shown = await fleet.run("server", ["doctor", "--state", fleet.serverFolder, "--config", config])
    expect(shown.code).toBe(1)
    expect(shown.stdout).toMatch(/^ {2}failed +a configuration without mistakes: .*\n {12}→ mend it there/m)
    expect(shown.stdout).toMatch(/\d+ ok, \d+ degraded, 1 failed\n$/)
    const refused = await fleet.run("server", ["config", "--config", config])
    expect(refused).toMatchObject({ code: 78, stdout: "" })
  })

  it("says that there is nothing to look at", async () => {
    const ended = await fleet.postern(["doctor", "--state", fleet.folder])
    expect(ended).toMatchObject({ code: 1, stdout: "" })
    expect(ended.stderr).toContain(`There is no state of a client or server in ${fleet.folder}`)
  })

  it.skipIf(!requires("root"))("finds what a start as another user has left behind", async () => {
    const strange = join(fleet.serverFolder, "strange")
    writeFileSync(strange, "")
    chownSync(strange, 12_345, 12_345)
    const found = await examine(fleet.serverFolder)
    expect(found.of("state.files")).toMatchObject({ state: "failed" })
    expect(found.of("state.files")?.reason).toMatch(/^strange belong/)
    chownSync(strange, process.getuid?.() ?? 0, 0)
  })
})

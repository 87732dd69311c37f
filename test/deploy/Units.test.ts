import { spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, expect, it } from "vitest"
import { describeWith } from "../support/requires.ts"

const deploy = join(import.meta.dirname, "../../deploy")
const read = (name: string): string => readFileSync(join(deploy, name), "utf8")

/** The agreed thresholds: what `systemd-analyze security` may say at the most, by unit. */
const agreed: Readonly<
  Record<string, { readonly dropIns: ReadonlyArray<string>; readonly threshold: number }>
> = JSON.parse(read("security-thresholds.json"))

describeWith(["systemd-analyze"], "the systemd units", () => {
  let folder: string

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "postern-units-"))
  })
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  /** A copy that starts a program which is there on this machine, with its drop-ins beside it. */
  const place = (name: string): string => {
    const unit = name.split(" ")[0] ?? name
    const at = join(folder, name.replaceAll(" ", "-"))
    mkdirSync(join(at, `${unit}.d`), { recursive: true })
    writeFileSync(join(at, unit), read(unit).replace("/usr/bin/node", process.execPath))
    for (const dropIn of agreed[name]?.dropIns ?? [])
      writeFileSync(join(at, `${unit}.d`, dropIn), read(dropIn))
    return join(at, unit)
  }

  const analyze = (...args: ReadonlyArray<string>) =>
    spawnSync("systemd-analyze", args, {
      encoding: "utf8",
      timeout: 60_000,
      env: { PATH: process.env["PATH"] }
    })

  it.each(Object.keys(agreed))("are understood by systemd, to the last word: %s", (name) => {
    const said = analyze("verify", "--man=no", place(name))
    expect(`${said.stdout}${said.stderr}`).toBe("")
    expect(said.status).toBe(0)
  })

  it.each(Object.entries(agreed))("stay below their threshold: %s", (name, { threshold }) => {
    const said = analyze("security", "--offline=true", "--no-pager", `--threshold=${threshold}`, place(name))
    expect(said.status, `${said.stdout}${said.stderr}`.split("\n").slice(-3).join("\n")).toBe(0)
    expect(said.stdout).toContain("Overall exposure level")
  })

  it("name the user and folders that are made for them", () => {
    expect(read("postern.sysusers.conf")).toMatch(/^u postern-server /m)
    expect(read("postern-server.service")).toContain("User=postern-server")
    expect(read("postern-client.tmpfiles.conf")).toMatch(/^d \/var\/lib\/postern 0700 postern postern/m)
    expect(read("postern-client.service")).toContain("ReadWritePaths=/var/lib/postern")
  })
})

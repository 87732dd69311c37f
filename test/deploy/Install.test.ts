import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { runToEnd } from "../support/Program.ts"

const script = join(import.meta.dirname, "../../deploy/install.sh")

/** Stands for the built program: the script asks it for its example configuration only. */
const program = 'process.stdout.write("# an example\\n")\n'

describe("the install script", () => {
  let folder: string

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "postern-install-"))
    writeFileSync(join(folder, "client.js"), program)
  })
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  const root = () => join(folder, "root")
  const install = (...args: ReadonlyArray<string>) =>
    runToEnd(["sh", script, ...args], {
      cwd: folder,
      environment: { PATH: `${join(process.execPath, "..")}:/usr/bin:/bin`, DESTDIR: root() }
    })

  it("puts program, unit and an example of the configuration in place, and keeps one that is there", async () => {
    expect(await install("client", "client.js")).toMatchObject({ code: 0, stderr: "" })
    const settings = join(root(), "etc/postern/client.toml")
    const unit = readFileSync(join(root(), "etc/systemd/system/postern-client.service"), "utf8")
    expect(unit).toMatch(
      /^ExecStart=\/\S+\/node \/opt\/postern\/client\.js --config \/etc\/postern\/client\.toml/m
    )
    expect(readFileSync(join(root(), "opt/postern/client.js"), "utf8")).toBe(program)
    expect(readFileSync(settings, "utf8")).toBe("# an example\n")
    expect(statSync(settings).mode & 0o777).toBe(0o644)
    expect(existsSync(join(root(), "usr/lib/tmpfiles.d/postern-client.conf"))).toBe(true)
    writeFileSync(settings, 'name = "mine"\n')
    expect(await install("client", "client.js")).toMatchObject({ code: 0, stderr: "" })
    expect(readFileSync(settings, "utf8")).toBe('name = "mine"\n')
  })

  it("takes them away again, and leaves the configuration", async () => {
    const gone = await install("--uninstall", "client")
    expect(gone).toMatchObject({ code: 0, stderr: "" })
    expect(gone.stdout).toContain("/var/lib/postern")
    expect(existsSync(join(root(), "etc/systemd/system/postern-client.service"))).toBe(false)
    expect(existsSync(join(root(), "opt/postern/client.js"))).toBe(false)
    expect(existsSync(join(root(), "etc/postern/client.toml"))).toBe(true)
    expect(await install("--uninstall", "client")).toMatchObject({ code: 0 })
  })

  it.each([
    [[], "say client or server"],
    [["operator"], "say client or server"],
    [["server", "missing.js"], "name the program's file"]
  ])("says what is wrong with %j", async (args, words) => {
    const { code, stderr } = await install(...args)
    expect(code).toBe(1)
    expect(stderr).toContain(words)
  })
})

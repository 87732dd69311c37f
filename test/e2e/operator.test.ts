import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { BuiltFleet } from "../support/BuiltFleet.ts"
import { runToEnd } from "../support/Program.ts"
import { describeWith } from "../support/requires.ts"
import { atTerminal } from "../support/terminal.ts"

const cli = join(import.meta.dirname, "../../dist/cli.js")

let fleet: BuiltFleet
let token = ""

beforeAll(async () => {
  fleet = await BuiltFleet.create()
  await fleet.startServer()
  token = await fleet.token("alice", "admin")
})
afterAll(() => fleet.close())

const init = (...flags: ReadonlyArray<string>) => ["keys", "init", "--server", fleet.address, ...flags]
const home = (name: string) => join(fleet.folder, name)

describe("postern keys init", () => {
  it("makes nothing when the server is another one than was shown", async () => {
    const other = `srv_${"a".repeat(52)}`
    const ended = await fleet.postern(init("--server-id", other, "--no-passphrase"), {
      env: { POSTERN_HOME: home("wrong") }
    })
    expect(ended).toMatchObject({ code: 1, stdout: "" })
    expect(ended.stderr).toMatch(/^postern: The server is srv_\w+, not srv_a+\. Nothing was made/)
    expect(readdirSync(fleet.folder)).not.toContain("wrong")
  })

  it("makes nothing without a passphrase unless that is said", async () => {
    const ended = await fleet.postern(init("--yes"), { env: { POSTERN_HOME: home("none") } })
    expect(ended).toMatchObject({ code: 2, stdout: "" })
    expect(ended.stderr).toMatch(/POSTERN_PASSPHRASE_FILE.*--no-passphrase/)
    expect(readdirSync(fleet.folder)).not.toContain("none")
  })

  it("protects the keys, publishes the root, and opens them with the passphrase alone", async () => {
    const passphrase = join(fleet.folder, "passphrase")
    writeFileSync(passphrase, "correct horse\n", { mode: 0o600 })
    const env = { POSTERN_HOME: home("alice"), POSTERN_PASSPHRASE_FILE: passphrase }
    const recovery = join(fleet.folder, "recovery.key")
    const made = await fleet.postern(
      init(
        "--server-id",
        await fleet.serverId(),
        "--token-file",
        token,
        "--recovery-key",
        recovery,
        "--json"
      ),
      { env }
    )
    expect(made).toMatchObject({ code: 0, stderr: "" })
    expect(JSON.parse(made.stdout)).toMatchObject({ protected: true, published: true, root_version: 1 })
    for (const file of [recovery, join(env.POSTERN_HOME, "operator.key")]) {
      expect(readFileSync(file, "latin1")).toMatch(/^age-encryption\.org\/v1\n-> scrypt /)
      expect(statSync(file).mode & 0o777).toBe(0o600)
    }
    expect(statSync(env.POSTERN_HOME).mode & 0o777).toBe(0o700)
    const again = await fleet.postern(init("--yes"), { env })
    expect(again.code).toBe(1)
    expect(again.stderr).toMatch(/There are operator keys in .* already/)
    const status = await fleet.postern(["status", "--json"], { env })
    expect(JSON.parse(status.stdout)).toMatchObject({
      root_version: 1,
      trusted_root_version: 1,
      alarms: [],
      warnings: []
    })
  })
})

describeWith(["python3"], "a person at a terminal", () => {
  const dialogue = (args: ReadonlyArray<string>, answers: Parameters<typeof atTerminal>[2], name: string) =>
    atTerminal(
      [process.execPath, cli, ...args],
      { PATH: "/usr/bin:/bin", HOME: fleet.folder, POSTERN_HOME: home(name) },
      answers
    )

  it("compares the server's id, types the passphrase twice without echo, and gives the token", async () => {
    const other = await BuiltFleet.create()
    try {
      await other.startServer()
      const secret = readFileSync(await other.token("bob", "admin"), "utf8").trim()
      const { code, screen } = await dialogue(
        ["keys", "init", "--server", other.address],
        [
          ["[y/N] ", "y\r"],
          ["Passphrase for the private keys: ", "horse\r"],
          ["The same again: ", "house\r"],
          ["They differ.", ""],
          ["Passphrase for the private keys: ", "battery staplx\u007fe\r"],
          ["The same again: ", "battery staple\r"],
          ["API token", `${secret}\r`]
        ],
        "bob"
      )
      expect(code, screen).toBe(0)
      expect(screen).toContain("The root is published.")
      expect(screen).toContain(await other.serverId())
      expect(screen).not.toMatch(/horse|house|battery|postern-token/)
      const opened = await dialogue(["devices", "list"], [], "bob")
      expect(opened.screen).toContain("No devices yet")
    } finally {
      await other.close()
    }
  })

  it("may say no, and nothing was made", async () => {
    const { code, screen } = await dialogue(init(), [["[y/N] ", "\r"]], "carol")
    expect(code).toBe(1)
    expect(screen).toContain("Nothing was made")
    expect(readdirSync(fleet.folder)).not.toContain("carol")
  })

  it("may press Ctrl-C at a question", async () => {
    const asked = await dialogue(init(), [["[y/N] ", "\u0003"]], "dave")
    expect(asked.code).toBe(130)
    const hidden = await dialogue(init("--yes"), [["Passphrase for the private keys: ", "abc\u0003"]], "dave")
    expect(hidden.code).toBe(130)
    expect(readdirSync(fleet.folder)).not.toContain("dave")
  })
})

describe("postern against a server", () => {
  const env = () => ({ POSTERN_HOME: home("alice") })

  it("says when the token is not good", async () => {
    const bad = join(fleet.folder, "bad-token")
    writeFileSync(bad, `postern-token-v1.${"a".repeat(52)}\n`, { mode: 0o600 })
    const ended = await fleet.postern(["login", "--server", fleet.address, "--token-file", bad], {
      env: env()
    })
    expect(ended).toMatchObject({ code: 1, stdout: "" })
    expect(ended.stderr).toMatch(/^postern: Could not log in: .* does not accept the token.*postern login/)
    expect(ended.stderr.split("\n")).toHaveLength(2)
  })

  it("keeps the keys it made when the token is not good, and says how to go on", async () => {
    const bad = join(fleet.folder, "bad-token-too")
    writeFileSync(bad, `postern-token-v1.${"a".repeat(52)}\n`, { mode: 0o600 })
    const ended = await fleet.postern(
      ["keys", "init", "--server", fleet.address, "--yes", "--no-passphrase", "--token-file", bad],
      { env: { POSTERN_HOME: home("erin") } }
    )
    expect(ended.code).toBe(1)
    expect(ended.stderr).toContain("does not accept the token")
    expect(ended.stderr).toContain("The keys and the trust root are made")
    expect(ended.stderr).toMatch(/Next: postern login --server \S+, then postern keys publish$/m)
  })

  it("takes a token from stdin, and says what its role may not do", async () => {
    const viewer = readFileSync(await fleet.token("victor", "viewer"), "utf8")
    const victor = { POSTERN_HOME: home("victor") }
    const login = ["login", "--server", fleet.address, "--token-file", "-"]
    expect(await fleet.postern(login, { env: victor, input: viewer })).toMatchObject({ code: 0 })
    const refused = await fleet.postern(
      ["keys", "init", "--server", fleet.address, "--yes", "--no-passphrase"],
      { env: victor }
    )
    expect(refused.code).toBe(0)
    const published = await fleet.postern(["keys", "publish"], { env: victor })
    expect(published.code).toBe(1)
    expect(published.stderr).toMatch(
      /^postern: Could not publish the trust root: the token's role does not allow it/
    )
  })

  it("fails when its output cannot be written, and ends quietly when nobody reads on", async () => {
    const shell = (script: string) =>
      runToEnd(["sh", "-c", script, process.execPath, cli], {
        cwd: fleet.folder,
        environment: { PATH: "/usr/bin:/bin", HOME: fleet.folder, ...env() }
      })
    const full = await shell('"$0" "$1" keys show > /dev/full')
    expect(full).toMatchObject({ code: 1, stdout: "" })
    expect(full.stderr).toMatch(/^postern: Could not write the output: .*ENOSPC.*\n$/)
    expect(await shell('"$0" "$1" --help | head -n 1')).toEqual({
      code: 0,
      stdout: "DESCRIPTION\n",
      stderr: ""
    })
  })

  it("refuses to put a foreign root over the server's", async () => {
    const eve = { POSTERN_HOME: home("eve") }
    const made = await fleet.postern(init("--yes", "--no-passphrase", "--token-file", token), { env: eve })
    expect(made.code).toBe(1)
    expect(made.stderr).toMatch(/Could not publish the trust root: .*belongs to somebody else/)
  })

  it("says which address is not reached, and what to do", async () => {
    await fleet.server.stop()
    try {
      for (const args of [["status"], ["devices", "list"], ["jobs", "list"], ["ps"]]) {
        const ended = await fleet.postern(args, { env: env() })
        expect(ended).toMatchObject({ code: 1, stdout: "" })
        expect(ended.stderr).toContain(`${fleet.address} was not reached (`)
        expect(ended.stderr).toContain("Is the server running")
        expect(ended.stderr.split("\n")).toHaveLength(2)
      }
    } finally {
      await fleet.startServer()
    }
  })

  it("raises an alarm when the server lost its memory", async () => {
    await fleet.server.stop()
    for (const name of readdirSync(fleet.serverFolder)) {
      if (name !== "keys") rmSync(join(fleet.serverFolder, name), { recursive: true })
    }
    await fleet.startServer()
    const fresh = await fleet.token("alice", "admin")
    expect(
      await fleet.postern(["login", "--server", fleet.address, "--token-file", fresh], { env: env() })
    ).toMatchObject({ code: 0 })
    const ended = await fleet.postern(["status", "--json"], { env: env() })
    expect(ended.code).toBe(1)
    expect(JSON.parse(ended.stdout).alarms.join()).toMatch(/holds version 0 of the trust root, you version 1/)
    expect(ended.stderr).toMatch(/^ALARM: /)
    expect(await fleet.postern(["keys", "publish"], { env: env() })).toMatchObject({ code: 0 })
    expect(await fleet.postern(["status"], { env: env() })).toMatchObject({ code: 0 })
  })
})

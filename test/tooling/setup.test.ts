import { spawn } from "node:child_process"
import { once } from "node:events"
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest"

const scripts = join(import.meta.dirname, "../../scripts")

let folder = ""
let said = ""

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "postern-setup-"))
  said = ""
  vi.spyOn(process.stderr, "write").mockImplementation((text) => {
    said += String(text)
    return true
  })
})

afterEach(() => {
  vi.restoreAllMocks()
  vi.unstubAllEnvs()
  rmSync(folder, { recursive: true, force: true })
})

const write = (path: string, content: unknown): void => {
  mkdirSync(dirname(join(folder, path)), { recursive: true })
  writeFileSync(join(folder, path), typeof content === "string" ? content : JSON.stringify(content))
}

describe("what the lock file names and node_modules lacks", () => {
  const integrity = "sha512-AA=="
  const missing = async (): Promise<ReadonlyArray<string>> =>
    (await import(join(scripts, "lib/setup.mjs"))).missingFrom(folder)

  beforeEach(() => {
    write("package-lock.json", {
      packages: {
        "": { dependencies: { a: "1.0.0" }, devDependencies: { b: "2.0.0" } },
        "node_modules/a": {
          version: "1.0.0",
          integrity,
          optionalDependencies: { here: "1.0.0", elsewhere: "1.0.0" }
        },
        "node_modules/b": { version: "2.0.0", integrity, dependencies: { a: "3.0.0" } },
        "node_modules/b/node_modules/a": { version: "3.0.0", integrity },
        "node_modules/here": {
          version: "1.0.0",
          integrity,
          optional: true,
          cpu: [process.arch],
          os: "linux"
        },
        "node_modules/elsewhere": {
          version: "1.0.0",
          integrity,
          optional: true,
          os: ["plan9"],
          dependencies: { c: "1.0.0" }
        },
        "node_modules/c": { version: "1.0.0", integrity, optional: true }
      }
    })
    write("node_modules/a/package.json", { version: "1.0.0" })
    write("node_modules/b/package.json", { version: "v2.0.0" })
    write("node_modules/b/node_modules/a/package.json", { version: "3.0.0" })
    write("node_modules/here/package.json", { version: "1.0.0" })
  })

  it("is nothing when all is there that this machine needs", async () => {
    expect(await missing()).toEqual([])
  })

  it("is a package in another version, however deep it lies", async () => {
    write("node_modules/b/node_modules/a/package.json", { version: "3.0.1" })
    expect(await missing()).toEqual(["a@3.0.0"])
  })

  it("is an optional package that fits this machine and was left out", async () => {
    rmSync(join(folder, "node_modules/here"), { recursive: true })
    expect(await missing()).toEqual(["here@1.0.0"])
  })
})

describe("parts of the system", () => {
  const ensure = async (): Promise<void> =>
    (await import(join(scripts, "lib/system.mjs"))).ensureSystemParts("demo")

  /** An apt-get that notes its arguments and makes the commands that its packages hold. */
  const fakeApt = (): void => {
    const lines = [
      "#!/bin/sh",
      `echo "$@" >> ${folder}/calls`,
      "for command in bwrap prlimit; do",
      `  : > ${folder}/$command && /bin/chmod +x ${folder}/$command`,
      "done"
    ]
    write("apt-get", `${lines.join("\n")}\n`)
    chmodSync(join(folder, "apt-get"), 0o755)
  }

  const actAs = (uid: number): void => {
    vi.spyOn(process as { getuid: () => number }, "getuid").mockReturnValue(uid)
  }

  beforeEach(() => {
    vi.stubEnv("PATH", folder)
    vi.stubEnv("POSTERN_NO_APT", "")
  })

  it("are installed with apt by root, who is told", async () => {
    fakeApt()
    actAs(0)
    await ensure()
    expect(readFileSync(join(folder, "calls"), "utf8")).toBe(
      "install -y --no-install-recommends bubblewrap util-linux\n"
    )
    expect(said).toContain("installing system packages with apt: bubblewrap")
    expect(said).not.toContain("missing")
  })

  it("are left alone when POSTERN_NO_APT=1, and named with what they are good for", async () => {
    fakeApt()
    actAs(0)
    vi.stubEnv("POSTERN_NO_APT", "1")
    await ensure()
    expect(existsSync(join(folder, "calls"))).toBe(false)
    expect(said).toContain("missing: bwrap (package bubblewrap): the jail that jobs run in")
    expect(said).toContain("POSTERN_NO_APT=1 forbids installing")
  })

  it("are only named to anyone but root", async () => {
    fakeApt()
    actAs(1000)
    await ensure()
    expect(existsSync(join(folder, "calls"))).toBe(false)
    expect(said).toContain("installing needs root")
  })
})

describe("a task's process", () => {
  /** A script that runs the given program as our tasks are run, and exits with its code. */
  const attached = (program: string) => {
    write("child.mjs", program)
    const exec = join(scripts, "lib/exec.mjs")
    write(
      "parent.mjs",
      `const { runAttached } = await import(${JSON.stringify(exec)})
       process.exit(await runAttached(process.execPath, [${JSON.stringify(join(folder, "child.mjs"))}]))`
    )
    const parent = spawn(process.execPath, [join(folder, "parent.mjs")], {
      stdio: ["ignore", "pipe", "inherit"],
      detached: true
    })
    group = parent.pid
    return parent
  }

  // A child that is left alone would hold our output open, and vitest would wait for it without an end.
  let group: number | undefined
  afterEach(() => {
    try {
      if (group !== undefined) process.kill(-group, "SIGKILL")
    } catch {
      // Nothing of it is left, as it should be.
    }
  })

  it("keeps its exit code", async () => {
    const [code] = await once(attached("process.exit(7)"), "exit")
    expect(code).toBe(7)
  })

  it("ends with 128 + n when signal n killed it", async () => {
    const [code] = await once(attached('process.kill(process.pid, "SIGKILL")'), "exit")
    expect(code).toBe(137)
  })

  it.each(["SIGTERM", "SIGINT"] as const)("gets %s", async (signal) => {
    const parent = attached(
      `process.on("${signal}", () => process.exit(3)); setInterval(() => {}, 1000); console.log("ready")`
    )
    await once(parent.stdout, "data")
    parent.kill(signal)
    const [code] = await once(parent, "exit")
    expect(code).toBe(3)
  })
})

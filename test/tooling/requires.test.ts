import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { afterEach, describe, expect, it, vi } from "vitest"
import { requires } from "../support/requires.ts"

describe("requires", () => {
  afterEach(() => {
    vi.unstubAllEnvs()
    vi.restoreAllMocks()
  })

  it("is true when every part is there", () => {
    expect(requires("sh", "ls")).toBe(true)
  })

  it("says why it skips, and is false", () => {
    vi.stubEnv("CI", "")
    const said = vi.spyOn(process.stderr, "write").mockReturnValue(true)
    expect(requires("sh", "no-such-command")).toBe(false)
    expect(said).toHaveBeenCalledExactlyOnceWith("skipped, because there is no no-such-command here\n")
  })

  it("fails in CI", () => {
    vi.stubEnv("CI", "true")
    expect(() => requires("no-such-command")).toThrow("in CI nothing may be missing")
  })
})

describe("scripts/system-packages.json", () => {
  const probes = ["root", "jail", "open-checkout", "oldest-node", "ancient-node"]
  const listed: ReadonlyArray<string> = JSON.parse(
    readFileSync(join(import.meta.dirname, "../../scripts/system-packages.json"), "utf8")
  ).map((part: { command: string }) => part.command)

  it("lists every part that a test asks for, so that npm test can install it", () => {
    const tests = join(import.meta.dirname, "..")
    const asked = readdirSync(tests, { recursive: true, encoding: "utf8" })
      .filter((path) => path.endsWith(".ts") && !path.startsWith("tooling") && !path.includes("node_modules"))
      .flatMap((path) => [
        ...readFileSync(join(tests, path), "utf8").matchAll(/\b(?:requires\(|describeWith\(\[)("[^)\]]*)/g)
      ])
      .flatMap(([, parts]) => [...(parts ?? "").matchAll(/"([^"]+)"/g)].map(([, part]) => part))
    expect(asked).toContain("jail")
    expect(asked.filter((part) => ![...probes, ...listed].includes(part ?? ""))).toEqual([])
  })
})

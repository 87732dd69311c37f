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

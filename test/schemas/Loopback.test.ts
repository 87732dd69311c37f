import { describe, expect, it } from "vitest"
import { isLoopback, loopbackWarning } from "../../src/schemas/Loopback.ts"

describe("an address", () => {
  it.each([
    "http://127.0.0.1:8470",
    "http://127.1.2.3",
    "https://localhost",
    "http://server.localhost:80",
    "http://[::1]:8470"
  ])("is loopback: %s", (address) => expect(isLoopback(address)).toBe(true))

  it.each([
    "http://192.0.2.1:8470",
    "https://postern.example",
    "http://localhost.example",
    "https://127.0.0.1.example",
    "http://[2001:db8::1]:8470",
    "http://0.0.0.0:1"
  ])("is not: %s", (address) => expect(isLoopback(address)).toBe(false))
})

describe("the warning of an invitation", () => {
  it("names the addresses and what to change, where no other machine could use it", () => {
    const warning = loopbackWarning(["http://127.0.0.1:8470", "http://[::1]:8470"])
    expect(warning).toContain("http://127.0.0.1:8470, http://[::1]:8470")
    expect(warning).toMatch(
      /keys root draft next.json --address URL, .*root sign next.json, .*root publish next.json$/
    )
  })
  it("is silent where one address leads there from elsewhere", () => {
    expect(loopbackWarning(["http://127.0.0.1:8470", "https://postern.example"])).toBeUndefined()
    expect(loopbackWarning([`http://${"a".repeat(55)}d.onion`])).toBeUndefined()
  })
})

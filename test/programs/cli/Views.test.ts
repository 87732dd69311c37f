import { expect, it } from "vitest"
import { takesWork } from "../../../src/programs/cli/Views.ts"

it("does not say that a device takes work which was accepted and never heard", () => {
  expect(takesWork(undefined)).toBe("no")
  expect(takesWork({ status: "pending", last_seen_at_ms: null })).toBe("no")
  expect(takesWork({ status: "accepted", last_seen_at_ms: null })).toBe("unknown")
  expect(takesWork({ status: "accepted", last_seen_at_ms: 1_000 })).toBe("yes")
})

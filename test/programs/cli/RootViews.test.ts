/** What the CLI says of the trust root's end and of those who lag behind it. */
import { assert, describe, it } from "@effect/vitest"
import { laggardText, rootLines } from "../../../src/programs/cli/RootViews.ts"
import type { LaggardPage } from "../../../src/schemas/ManagementApi.ts"
import { expiryWarning } from "../../../src/schemas/RootExpiry.ts"
import { device, nowMs, trust } from "../../support/operators.ts"

const day = 86_400_000
const page = (count: number, shown: number): LaggardPage => ({
  root_version: 4,
  count,
  devices: Array.from({ length: shown }, (_, at) => ({
    device: device.id,
    name: at === 0 ? ("pi-attic" as never) : null,
    root_version: at === 0 ? 3 : null,
    last_seen_at_ms: at === 0 ? nowMs - 7_200_000 : null
  })) as LaggardPage["devices"]
})

describe("the trust root in words", () => {
  it("warns from 90, 30 and 7 days ahead, and after its end", () => {
    const levelAt = (leftMs: number) =>
      expiryWarning({ version: 1, expires_at_ms: nowMs + leftMs }, nowMs)?.level
    assert.deepEqual(
      [90 * day + 1, 90 * day, 30 * day + 1, 30 * day, 7 * day + 1, 7 * day, 1, 0, -day].map(levelAt),
      [undefined, "quarter", "quarter", "month", "month", "week", "week", "expired", "expired"]
    )
    const warning = expiryWarning({ version: 3, expires_at_ms: nowMs }, nowMs)
    assert.match(
      warning?.text ?? "",
      /^The trust root \(version 3, until 2027-01-15 08:00 UTC\) has EXPIRED: .*keys renew/
    )
  })

  it("names the first who lag behind, and counts the others", () => {
    assert.isUndefined(laggardText(page(0, 0), nowMs))
    assert.strictEqual(
      laggardText(page(1, 1), nowMs),
      "1 device has not reached version 4 of the trust root: pi-attic (at 3, seen 2h ago)"
    )
    const many = laggardText(page(12, 12), nowMs) ?? ""
    assert.match(many, /^12 devices have not .* \(no version told, never seen\) and 7 more$/)
  })

  it("shows roles, thresholds, servers and what is known of the devices", () => {
    const trusted = { ...trust, firstDigest: trust.digest, chain: [trust.envelope], history: [trust.root] }
    const text = rootLines(trusted, page(0, 0), nowMs)
    for (const part of [
      "Version 1 of the trust root",
      trust.digest,
      "root keys, 1 of 2 must sign:",
      "operators, 1 of 1 must sign:",
      "at http://127.0.0.1:8470",
      "devices: all have this version"
    ])
      assert.include(text, part)
    assert.include(rootLines(trusted, undefined, nowMs), "devices: no server was asked")
    assert.include(rootLines(trusted, page(1, 1), nowMs + 360 * day), "expires within a week")
  })
})

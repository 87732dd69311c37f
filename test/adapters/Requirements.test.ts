/** What a start looks through: everything at once, and only what matters keeps the client from running. */
import { chmodSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { findNeeds, type NeedOptions } from "../../src/adapters/Requirements.ts"
import { Finding } from "../../src/schemas/Finding.ts"
import { temporaryFolder } from "./support/folders.ts"

const needs = (changes: Partial<NeedOptions> & Pick<NeedOptions, "stateFolder">) =>
  findNeeds({
    looksIntoFolder: true,
    bwrap: "bwrap",
    knowsServer: true,
    environment: { PATH: "/usr/bin:/bin" },
    ...changes
  })

const of = (findings: ReadonlyArray<Finding>, state: Finding["state"]) =>
  findings.filter((finding) => finding.state === state).map(({ id }) => id)

describe("what a client needs", () => {
  it.live("is told whole, each with what it is for and what mends it", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const open = join(folder)
      chmodSync(open, 0o755)
      const findings = needs({
        stateFolder: open,
        knowsServer: false,
        bwrap: "/nowhere/bwrap",
        environment: { PATH: "/nowhere", NOTIFY_SOCKET: "/run/notify" }
      })
      yield* Schema.decodeEffect(Schema.Array(Finding))(findings)
      assert.deepStrictEqual(of(findings, "failed"), ["state.folder", "server.known"])
      assert.includeMembers(of(findings, "degraded"), ["program.bwrap", "program.systemd-notify"])
      for (const { mend, reason, state } of findings)
        assert.isTrue(state === "ok" || (mend !== "" && reason !== ""))
      assert.include(
        findings.find(({ id }) => id === "program.bwrap")?.mend ?? "",
        "apt-get install bubblewrap"
      )
      assert.include(findings.find(({ id }) => id === "state.folder")?.reason ?? "", "chmod 0700")
    })
  )

  it.live("is not asked for where nobody waits for it", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const findings = needs({ stateFolder: join(folder, "new") })
      assert.deepStrictEqual(of(findings, "failed"), [])
      assert.notInclude(
        findings.map(({ id }) => id),
        "program.systemd-notify"
      )
    })
  )
})

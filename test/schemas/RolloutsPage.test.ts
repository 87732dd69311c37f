/** The page on rollouts names every member, every outcome and every flag there is. */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Limits } from "../../src/schemas/Limits.ts"
import {
  DeviceOutcome,
  RolloutAction,
  RolloutControl,
  RolloutPhase,
  RolloutPlan
} from "../../src/schemas/Rollout.ts"

const root = join(import.meta.dirname, "../..")
const page = readFileSync(join(root, "docs/rollouts.md"), "utf8")

describe("docs/rollouts.md", () => {
  it("names every member of the signed documents", () => {
    const members = [RolloutPlan, RolloutPhase, RolloutControl].flatMap((schema) =>
      Object.keys(schema.fields)
    )
    for (const member of members) assert.include(page, `\`${member}\``)
  })

  it("names every outcome and every word to a rollout", () => {
    for (const word of [...DeviceOutcome.literals, ...RolloutAction.literals]) assert.include(page, word)
  })

  it("names every flag of a rollout", () => {
    const source = readFileSync(join(root, "src/programs/cli/RolloutPhases.ts"), "utf8")
    const flags = [...source.matchAll(/(?:Flag\.\w+|durationFlag)\(\s*"([a-z-]+)"/g)].map((match) => match[1])
    assert.isAtLeast(flags.length, 8)
    for (const flag of flags) assert.include(page, `--${flag}`)
  })

  it("says the bounds as they are", () => {
    assert.include(page, `| devices of a rollout, and of a group | ${Limits.rolloutDevices} |`)
    assert.include(page, `| phases | ${Limits.rolloutPhases} |`)
    assert.include(page, `| open rollouts on a server | ${Limits.openRollouts} |`)
    assert.include(page, `${Limits.rolloutReserve.toLocaleString("en-US")} above`)
  })
})

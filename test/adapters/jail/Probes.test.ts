import { execFile } from "node:child_process"
import { join } from "node:path"
import { promisify } from "node:util"
import { describe, expect, it } from "@effect/vitest"
import { describeWith, requires } from "../../support/requires.ts"
import type { ProbeAnswers } from "./ProbeClient.ts"

const client = join(import.meta.dirname, "ProbeClient.ts")
const nobody = 65_534
const asRoot = process.getuid?.() === 0

/** Runs all probes in a client process under the given uid, with a secret in its environment. */
const probe = async (uid: number | null): Promise<ProbeAnswers> => {
  const { stdout } = await promisify(execFile)(process.execPath, ["--no-warnings", client], {
    cwd: "/",
    timeout: 100_000,
    maxBuffer: 1024 * 1024,
    env: { PATH: process.env["PATH"], TMPDIR: "/tmp", POSTERN_TEST_SECRET: "must not be seen" },
    ...(uid === null ? {} : { uid, gid: uid })
  })
  return JSON.parse(stdout) as ProbeAnswers
}

const show = ({ isolation, probes }: ProbeAnswers): string => {
  const line = (name: string, expected: string, seen: string) => `${name.padEnd(34)} ${expected.padEnd(44)} ${seen}`
  const rows = probes.map(({ expected, holds, name, seen }) =>
    line(name, JSON.stringify(expected).slice(1, 44), `${holds ? "" : "WRONG "}${JSON.stringify(seen).slice(0, 60)}`)
  )
  return [`Probes of the jail, isolation ${isolation}`, line("probe", "expected", "seen"), ...rows, ""].join("\n")
}

const judge = (answers: ProbeAnswers, isolation: string) => {
  process.stdout.write(`\n${show(answers)}\n`)
  expect(answers.isolation).toBe(isolation)
  expect(answers.probes.filter(({ holds }) => !holds)).toEqual([])
  expect(answers.probes.length).toBeGreaterThan(60)
}

describeWith(["jail", "perl"], "what a hostile job tries", () => {
  it("comes to nothing under this process's user", { timeout: 120_000 }, async () => {
    judge(await probe(null), asRoot ? "separate-uid" : "same-uid")
  })

  describe.skipIf(!asRoot || !requires("root"))("with a client that is not root", () => {
    it("comes to nothing too", { timeout: 120_000 }, async () => {
      judge(await probe(nobody), "same-uid")
    })
  })
})

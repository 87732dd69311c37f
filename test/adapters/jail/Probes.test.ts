import { spawn } from "node:child_process"
import { once } from "node:events"
import { closeSync, openSync } from "node:fs"
import { join } from "node:path"
import { text } from "node:stream/consumers"
import { describe, expect, it } from "@effect/vitest"
import { describeWith, requires } from "../../support/requires.ts"
import type { ProbeAnswers } from "./ProbeClient.ts"

const client = join(import.meta.dirname, "ProbeClient.ts")
const nobody = 65_534
const asRoot = process.getuid?.() === 0

/**
 * Runs all probes in a client process under the given uid, with a secret in its environment and with a file open for
 * reading that it inherited as descriptors 9 and 20: the jail must show neither.
 */
const probe = async (uid: number | null): Promise<ProbeAnswers> => {
  const stray = openSync(client, "r")
  const stdio: Array<"ignore" | "pipe" | "inherit" | number> = Array.from({ length: 21 }, () => "ignore")
  stdio.splice(1, 2, "pipe", "inherit")
  stdio[9] = stray
  stdio[20] = stray
  try {
    const child = spawn(process.execPath, ["--no-warnings", client], {
      cwd: "/",
      timeout: 100_000,
      killSignal: "SIGKILL",
      stdio,
      env: { PATH: process.env["PATH"], TMPDIR: "/tmp", POSTERN_TEST_SECRET: "must not be seen" },
      ...(uid === null ? {} : { uid, gid: uid })
    })
    const [printed, [code]] = await Promise.all([
      child.stdout === null ? "" : text(child.stdout),
      once(child, "exit")
    ])
    expect(code).toBe(0)
    return JSON.parse(printed) as ProbeAnswers
  } finally {
    closeSync(stray)
  }
}

const show = ({ isolation, probes }: ProbeAnswers): string => {
  const line = (name: string, expected: string, seen: string) =>
    `${name.padEnd(34)} ${expected.padEnd(44)} ${seen}`
  const rows = probes.map(({ expected, holds, name, seen }) =>
    line(
      name,
      JSON.stringify(expected).slice(1, 44),
      `${holds ? "" : "WRONG "}${JSON.stringify(seen).slice(0, 60)}`
    )
  )
  return [`Probes of the jail, isolation ${isolation}`, line("probe", "expected", "seen"), ...rows, ""].join(
    "\n"
  )
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

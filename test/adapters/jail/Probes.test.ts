import { spawn } from "node:child_process"
import { once } from "node:events"
import { closeSync, openSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { text } from "node:stream/consumers"
import { expect, it } from "@effect/vitest"
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
      timeout: 140_000,
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

/** What each user's client saw of one probe. */
interface Row {
  readonly name: string
  readonly expected: string
  readonly seen: ReadonlyArray<string>
}

const rowsOf = (columns: ReadonlyArray<ProbeAnswers>): ReadonlyArray<Row> =>
  (columns[0]?.probes ?? []).map(({ expected, name }, index) => ({
    name,
    expected,
    seen: columns.map(({ probes }) => {
      const probe = probes[index]
      return `${probe?.holds === true ? "" : "WRONG "}${JSON.stringify(probe?.seen ?? "").slice(1, -1)}`
    })
  }))

const show = (columns: ReadonlyArray<ProbeAnswers>): string => {
  const line = (cells: ReadonlyArray<string>) =>
    cells
      .map((cell, index) => (index === cells.length - 1 ? cell : cell.slice(0, 46).padEnd(46)))
      .join("  ")
      .trimEnd()
  const heading = ["probe", "expected", ...columns.map(({ isolation }) => `seen, ${isolation}`)]
  const rows = rowsOf(columns).map(({ expected, name, seen }) => line([name, expected, ...seen]))
  return ["Probes of the jail", line(heading), ...rows, ""].join("\n")
}

/** What the page says of a probe: its name, and what must come of it. A port's number differs from run to run. */
const pageRow = ({ expected, name }: Pick<Row, "name" | "expected">): string => {
  const shown = expected.replace(/^\^|\$$/g, "").replaceAll("\\n", "")
  return `| ${name.replace(/, port \d+$/, "")} | ${shown === "" ? "nothing: it is stopped" : `\`${shown.replaceAll("|", "\\|")}\``} |`
}

describeWith(["open-checkout", "jail", "perl"], "what a hostile job tries", () => {
  it("comes to nothing, whether the client is root or not", { timeout: 300_000 }, async () => {
    const own = await probe(null)
    const columns = asRoot && requires("root") ? [own, await probe(nobody)] : [own]
    process.stdout.write(`\n${show(columns)}\n`)
    expect(columns.map(({ isolation }) => isolation)).toEqual(
      asRoot ? ["separate-uid", "same-uid"] : ["same-uid"]
    )
    for (const { probes } of columns) {
      expect(probes.filter(({ holds }) => !holds)).toEqual([])
      expect(probes.length).toBeGreaterThan(60)
    }
    const page = readFileSync(join(import.meta.dirname, "../../../docs/jail.md"), "utf8")
    const missing = rowsOf(columns)
      .map(pageRow)
      .filter((row) => !page.includes(row))
    expect(missing.join("\n"), "rows that docs/jail.md has not").toBe("")
  })
})

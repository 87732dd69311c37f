/**
 * The payload pipeline against the tools it replaces: a package built (tar, zstd, age in one stream to disk) and opened
 * (proved, decrypted, unpacked to disk), beside `tar | zstd | age` and `age -d | zstd -d | tar -x`.
 *
 * Same files, same level of zstd (9, one thread), one recipient, files written and flushed to the same disk; the tools
 * open the very package that we opened. Ours builds as `postern` does and opens as a device does, with the flags that
 * its warden gives the client. Ours does more: it hashes every file and the ciphertext, twice when it builds,
 * and judges every entry. Each step is a process of its own, and the three tools are three. So there are two figures:
 * by the clock, where the tools share the cores among them, and by processor time of all processes together.
 */
import { spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { mkdirSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Redacted } from "effect"
import { NativeCrypto } from "../../src/adapters/NativeCrypto.ts"
import { packageLevel } from "../../src/adapters/packages/BuildPackage.ts"
import { clientFlags } from "../../src/adapters/warden/Role.ts"
import { formatIdentity, formatRecipient } from "../../src/crypto/AgeKeys.ts"
import { withFolder } from "../folder.ts"
import { type Bench, compare, median, type Result } from "../measure.ts"
import { mebibyte, writeContent } from "./content.ts"
import type { Done, Job } from "./packing.ts"

const tools = ["age", "zstd", "tar", "bash", "sync"]
const missing = (): ReadonlyArray<string> =>
  tools.filter((tool) => spawnSync("sh", ["-c", `command -v ${tool}`]).status !== 0)

const secret = Redacted.make(NativeCrypto.sha256(Uint8Array.of(3)))
const identity = Redacted.value(formatIdentity(secret))
const recipient = formatRecipient(NativeCrypto.x25519.publicKey(Redacted.value(secret)))

interface Took {
  readonly ms: number
  readonly cpuMs: number
}

const output = async (file: string, args: ReadonlyArray<string>): Promise<string> => {
  const child = spawn(file, args, { stdio: ["ignore", "pipe", "inherit"] })
  let text = ""
  child.stdout.setEncoding("utf8").on("data", (part) => {
    text += part
  })
  const [code] = await once(child, "close")
  if (code !== 0) throw new Error(`${file} ended with ${code}`)
  return text
}

const ours = async (step: "build" | "open", job: Job): Promise<Done> =>
  JSON.parse(
    await output(process.execPath, [
      ...(step === "open" ? clientFlags : []),
      join(import.meta.dirname, "packing.ts"),
      step,
      JSON.stringify(job)
    ])
  )

/** Runs a pipeline of the tools; bash says what all of them took of the processor. */
const theirs = async (pipeline: string): Promise<Took> => {
  const before = performance.now()
  const text = await output("bash", ["-c", `set -eo pipefail; ${pipeline}; times`])
  const ms = performance.now() - before
  const children = text.trim().split("\n").at(-1) ?? ""
  const parts = [...children.matchAll(/(\d+)m([\d.]+)s/g)]
  return {
    ms,
    cpuMs: parts.reduce(
      (sum, [, minutes, seconds]) => sum + Number(minutes) * 60_000 + Number(seconds) * 1_000,
      0
    )
  }
}

interface Rounds {
  readonly ours: Array<Done>
  readonly theirs: Array<Took>
}

/** Builds and opens in turns, ours and theirs; each opens the package that ours built. */
const measure = async (folder: string, sizeMiB: number, rounds: number) => {
  const source = join(folder, "source")
  const key = join(folder, "key")
  writeFileSync(key, `${identity}\n`, { mode: 0o600 })
  writeContent(source, sizeMiB)
  const target = join(folder, "ours.age")
  const built: Rounds = { ours: [], theirs: [] }
  const opened: Rounds = { ours: [], theirs: [] }
  for (let round = 0; round < rounds; round++) {
    const job = { folder: source, target, recipient, identity, payload: null }
    const done = await ours("build", job)
    built.ours.push(done)
    const packed = join(folder, "theirs.age")
    built.theirs.push(
      await theirs(
        `tar -C ${source} -cf - . | zstd -q -T1 -${packageLevel} | age -r ${recipient} -o ${packed}; sync ${packed}`
      )
    )
    const [mine, other] = [join(folder, "mine"), join(folder, "other")]
    opened.ours.push(await ours("open", { ...job, folder: mine, payload: done.payload }))
    mkdirSync(other)
    opened.theirs.push(await theirs(`age -d -i ${key} ${target} | zstd -q -d | tar -C ${other} -xf -`))
    for (const path of [packed, mine, other]) rmSync(path, { recursive: true, force: true })
  }
  return { built, opened }
}

const resultsOf = (
  what: string,
  sizeMiB: number,
  { ours, theirs }: Rounds,
  tool: string
): ReadonlyArray<Result> => {
  const rate = (field: "ms" | "cpuMs") => ({
    ours: (sizeMiB / median(ours.map((took) => took[field]))) * 1_000,
    [tool]: (sizeMiB / median(theirs.map((took) => took[field]))) * 1_000
  })
  const rise = Math.max(...ours.map(({ riseBytes }) => riseBytes)) / mebibyte
  return [
    compare(
      { name: `${what} a package of ${sizeMiB} MiB`, unit: "MiB/s", better: "higher" },
      rate("ms"),
      "ours"
    ),
    compare({ name: `${what}, by processor time`, unit: "MiB/s", better: "higher" }, rate("cpuMs"), "ours"),
    compare(
      { name: `${what}, most memory above the start`, unit: "MiB", better: "lower" },
      { ours: rise, "64 MiB, whatever the size": 64 },
      "ours",
      { "64 MiB, whatever the size": { atMost: 1 } }
    )
  ]
}

/** Four MiB less than a GiB: the manifest counts as well, and a package may hold a GiB. */
const fullMiB = 1_020

export const run: Bench = async ({ short }) => {
  const absent = missing()
  if (absent.length > 0) return { skipped: `there is no ${absent.join(" and no ")}` }
  const sizeMiB = short ? 48 : fullMiB
  const { built, opened } = await withFolder("pipeline", (folder) => measure(folder, sizeMiB, 1))
  return [
    ...resultsOf("build", sizeMiB, built, `tar | zstd -${packageLevel} | age`),
    ...resultsOf("open", sizeMiB, opened, "age -d | zstd -d | tar -x")
  ]
}

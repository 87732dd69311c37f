/** Packages of noise, and how fast devices download them: by their receipts, from the order's arrival to its start. */
import { randomBytes } from "node:crypto"
import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { BuiltFleet } from "../../test/support/BuiltFleet.ts"

const mebibyte = 1024 * 1024

let packages = 0

/** Builds a package of so many MiB that nothing makes smaller, submits it, and gives the MiB per second it came at. */
export const downloadRate = async (fleet: BuiltFleet, device: string, mebibytes: number): Promise<number> => {
  const folder = join(fleet.folder, `noise-${packages++}`)
  mkdirSync(folder)
  writeFileSync(join(folder, "postern.json"), JSON.stringify({ command: ["true"] }))
  writeFileSync(join(folder, "noise"), randomBytes(mebibytes * mebibyte))
  const file = `${folder}.postern`
  await fleet.ask(["package", "build", folder, "--device", device, "-o", file])
  const { job } = await fleet.ask<{ job: string }>(["jobs", "submit", file, "--device", device, "--yes"])
  const { receipt } = await fleet.finished(job, 15 * 60_000)
  const { received_at_ms: received, started_at_ms: started, state } = receipt ?? {}
  if (state !== "succeeded" || typeof received !== "number" || typeof started !== "number")
    throw new Error(`the job ended otherwise than it should: ${JSON.stringify(receipt)}`)
  return (mebibytes * 1_000) / (started - received)
}

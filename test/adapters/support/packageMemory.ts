/**
 * Builds and opens a small package, then one of so many megabytes, and says how far the second raised the program's
 * memory above the most that the first took, in bytes. Run as `node packageMemory.ts FOLDER MEGABYTES`.
 */
import { randomFillSync } from "node:crypto"
import { closeSync, mkdirSync, openSync, writeSync } from "node:fs"
import { join } from "node:path"
import { Effect } from "effect"
import { buildPackage } from "../../../src/adapters/packages/BuildPackage.ts"
import { readSource } from "../../../src/adapters/packages/SourceFiles.ts"
import { device, draft, openAs, outside } from "../packages/support.ts"

const [folder = "", megabytes = "0"] = process.argv.slice(2)
const block = Buffer.alloc(1024 * 1024)

/** Builds and opens a package and gives the most memory that was in use meanwhile. */
const peakOf = async (name: string, size: number): Promise<number> => {
  const root = join(folder, name)
  mkdirSync(join(root, "source"), { recursive: true })
  const file = openSync(join(root, "source/noise"), "w")
  for (let count = 0; count < size; count++) writeSync(file, randomFillSync(block, 0, block.length / 2))
  closeSync(file)
  let peak = 0
  const timer = setInterval(() => {
    peak = Math.max(peak, process.memoryUsage().rss)
  }, 5)
  const work = Effect.gen(function* () {
    const source = yield* readSource(join(root, "source"))
    const target = join(root, "p.age")
    const { payload } = yield* buildPackage({ source, draft, recipients: [device.recipient], target })
    yield* openAs(device)({ ciphertext: target, payload, folder: join(root, "out") })
  })
  await Effect.runPromise(Effect.provide(work, outside))
  clearInterval(timer)
  return peak
}

const small = await peakOf("small", 24)
process.stdout.write(String((await peakOf("large", Number(megabytes))) - small))

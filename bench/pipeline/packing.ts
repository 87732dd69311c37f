/**
 * One step of the payload pipeline in a process of its own, so that its memory can be told: `node packing.ts STEP JOB`,
 * where STEP is `build` or `open` and JOB the JSON of a {@link Job}. Prints a {@link Done}.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { Effect, Layer } from "effect"
import { NativeCrypto, NativeCryptoEngine } from "../../src/adapters/NativeCrypto.ts"
import { buildPackage } from "../../src/adapters/packages/BuildPackage.ts"
import { openPackage } from "../../src/adapters/packages/OpenPackage.ts"
import { readSource } from "../../src/adapters/packages/SourceFiles.ts"
import { SystemEntropy } from "../../src/adapters/SystemEntropy.ts"
import { parseIdentity, x25519Identity } from "../../src/crypto/AgeKeys.ts"
import { Recipient } from "../../src/schemas/Ids.ts"
import { defaultJobLimits } from "../../src/schemas/Manifest.ts"
import type { PayloadReference } from "../../src/schemas/WorkOrder.ts"

/** What a step works on. */
export interface Job {
  /** The files to pack, or the folder to unpack into. */
  readonly folder: string
  /** The package. */
  readonly target: string
  readonly recipient: string
  /** An age identity file's text. */
  readonly identity: string
  /** What the order says of the package; needed to open it. */
  readonly payload: typeof PayloadReference.Type | null
}

/** How a step went. */
export interface Done {
  readonly ms: number
  readonly cpuMs: number
  /** How far the process's resident memory rose at the most above what it was before. */
  readonly riseBytes: number
  readonly payload: typeof PayloadReference.Type
}

const draft = {
  name: "bench",
  command: ["true"],
  environment: {},
  idempotent: false,
  limits: defaultJobLimits,
  grants: { devices: [], read_only: [] },
  artifacts: []
}

const build = ({ folder, recipient, target }: Job) =>
  Effect.gen(function* () {
    const source = yield* readSource(folder)
    const recipients = [Recipient.make(recipient)]
    const { payload } = yield* buildPackage({ source, draft, recipients, target })
    return payload
  })

const open = ({ folder, identity, payload, target }: Job) => {
  const secret = parseIdentity(identity)
  if (secret === undefined || payload === null) throw new Error("the job names no identity or no payload")
  const identities = [x25519Identity(secret)]
  const options = { engine: NativeCrypto, identities, ciphertext: target, payload, folder }
  return Effect.as(openPackage(options), payload)
}

/** The most memory that was resident since the mark was last set back. */
const peakBytes = (): number => {
  const line = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"))
  return Number(line?.[1]) * 1024
}

const [step = "", text = ""] = process.argv.slice(2)
const job = JSON.parse(text) as Job
const work = Effect.suspend(() =>
  step === "build" ? Effect.orDie(build(job)) : Effect.orDie(open(job))
).pipe(Effect.provide(Layer.merge(NativeCryptoEngine, SystemEntropy)))
// Sets the mark back to what is resident now.
writeFileSync("/proc/self/clear_refs", "5")
const beforeBytes = process.memoryUsage().rss
const [cpuBefore, startedMs] = [process.cpuUsage(), performance.now()]
const payload = await Effect.runPromise(work)
const ms = performance.now() - startedMs
const { system, user } = process.cpuUsage(cpuBefore)
const done: Done = { ms, cpuMs: (user + system) / 1_000, riseBytes: peakBytes() - beforeBytes, payload }
process.stdout.write(JSON.stringify(done))

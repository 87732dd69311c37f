/** An operator in this process, over the home that a fleet's `postern` made: gives work and follows it to its receipt. */
import { join } from "node:path"
import { Effect, Layer, Option, Redacted } from "effect"
import { NativeCryptoEngine } from "../src/adapters/NativeCrypto.ts"
import { acceptedDevice } from "../src/adapters/operator/DeviceBook.ts"
import { ManagementClient, managementClient } from "../src/adapters/operator/ManagementClient.ts"
import { OperatorHomeAt, readJson } from "../src/adapters/operator/OperatorHome.ts"
import type { OperatorKeys } from "../src/adapters/operator/OperatorKeys.ts"
import { type DeviceRecord, ServerEntries, serversFile } from "../src/adapters/operator/Records.ts"
import { buildPackage } from "../src/adapters/packages/BuildPackage.ts"
import { SystemEntropy } from "../src/adapters/SystemEntropy.ts"
import { type FollowSink, followJob } from "../src/programs/cli/Following.ts"
import { planOrder, submitOrder } from "../src/programs/cli/Orders.ts"
import { Screen } from "../src/programs/cli/Screen.ts"
import { unlocked } from "../src/programs/cli/Unlock.ts"
import { uploadPayload } from "../src/programs/cli/Upload.ts"
import type { JobView } from "../src/schemas/ManagementApi.ts"
import { defaultJobLimits } from "../src/schemas/Manifest.ts"
import type { Receipt } from "../src/schemas/Receipt.ts"
import type { BenchFleet } from "./fleet.ts"

/** When each step of one submission was done, as wall-clock milliseconds; the receipt's are the device's own. */
export interface Submission {
  readonly begun: number
  readonly built: number
  readonly uploaded: number
  /** The server's answer that it took the order was here. */
  readonly accepted: number
  readonly verified: number
  readonly receipt: Receipt
}

const now = (): number => performance.timeOrigin + performance.now()

const NobodyLooks = Layer.succeed(Screen, {
  outIsTerminal: false,
  errIsTerminal: false,
  canAsk: false,
  color: false,
  columns: () => 80,
  write: () => Effect.void,
  failure: () => undefined
})

const silently: FollowSink = {
  output: () => Effect.void,
  state: () => Effect.void,
  attempt: () => Effect.void,
  // As `postern run` goes on; what it costs is in the figures.
  waiting: ({ message }) => Effect.sync(() => void process.stderr.write(`asking again: ${message}\n`))
}

const draft = {
  name: "true",
  command: ["true"],
  environment: {},
  idempotent: false,
  limits: defaultJobLimits,
  grants: { devices: [], read_only: [] },
  artifacts: []
}

const week = 7 * 86_400_000
const flags = { service: false, sealed: false, expires: week, deadline: Option.none<number>() }

/** Notes when the server's answer to the order comes; what the operator then writes down counts as later. */
const noticingAcceptance = <E, R>(submitting: Effect.Effect<JobView, E, R>) =>
  Effect.gen(function* () {
    const client = yield* ManagementClient
    let accepted = Number.NaN
    const noticing: typeof client = {
      ...client,
      call: (what, use, timeoutMs) =>
        Effect.tap(client.call(what, use, timeoutMs), () =>
          Effect.sync(() => {
            accepted = now()
          })
        )
    }
    // The last call of a submission is the order itself.
    const view = yield* Effect.provideService(submitting, ManagementClient, noticing)
    return { accepted, view }
  })

/** What `postern run DEVICE -- true` does. */
const submitTrue = Effect.fnUntraced(function* (device: DeviceRecord, keys: OperatorKeys, folder: string) {
  const begun = now()
  const target = join(folder, "true.postern")
  const recipients = [device.recipient, keys.profile.recipient]
  const package_ = yield* buildPackage({ source: { files: [], folders: [] }, draft, recipients, target })
  const built = now()
  const plan = yield* planOrder(device, package_, flags)
  yield* uploadPayload(target, package_.payload)
  const uploaded = now()
  const { accepted, view } = yield* noticingAcceptance(submitOrder(keys, plan))
  const { job, outputVerified } = yield* followJob(view.id, keys, silently)
  const verified = now()
  const receipt = job.receipt?.document
  if (receipt?.state !== "succeeded" || outputVerified !== true || job.alarms.length > 0)
    return yield* Effect.die(new Error(`job ${view.id} has no good receipt: ${JSON.stringify(job)}`))
  return { begun, built, uploaded, accepted, verified, receipt } satisfies Submission
})

/** Gives a function that submits a package and waits for its verified receipt. */
export const openOperator = async ({ device, fleet }: BenchFleet) => {
  const home = Layer.mergeAll(
    OperatorHomeAt(fleet.operatorFolder),
    NobodyLooks,
    NativeCryptoEngine,
    SystemEntropy
  )
  const entries = await Effect.runPromise(readJson(serversFile, ServerEntries).pipe(Effect.provide(home)))
  const token = Redacted.make(entries?.servers[0]?.token ?? "")
  const services = Layer.merge(home, managementClient({ address: fleet.address, proxy: null, token }))
  const context = await Effect.runPromise(Effect.scoped(Layer.build(services)))
  const run = Effect.runPromiseWith(context)
  const record = await run(acceptedDevice(device.name))
  const keys = await run(unlocked)
  return { submit: (): Promise<Submission> => run(submitTrue(record, keys, fleet.folder)) }
}

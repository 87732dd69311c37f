/**
 * `postern jobs submit`: a package on its way to a device.
 *
 * @module
 */
import { resolve } from "node:path"
import { Effect, Option, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { OperatorHome, readJson } from "../../adapters/operator/OperatorHome.ts"
import { SentOrder, sentOrderFile } from "../../adapters/operator/Records.ts"
import { OrderId } from "../../schemas/Ids.ts"
import { RolloutId, type RolloutPlan } from "../../schemas/Rollout.ts"
import { deviceToWork } from "./Colleagues.ts"
import { failure, usage } from "./Failure.ts"
import { yesFlag } from "./Flags.ts"
import { type OrderValues, orderFlags, planOrder, sendOrder, submitOrder } from "./Orders.ts"
import { confirmOrder, readOrder } from "./PackageCommand.ts"
import { fileDigest, provePackage } from "./PackagePlan.ts"
import { rolloutFlags } from "./RolloutPhases.ts"
import { resumeGroup, submitGroup } from "./RolloutSubmit.ts"
import { out, outJson, say } from "./Screen.ts"
import { Json, requireRoot, withServer } from "./Settings.ts"
import { counted } from "./Text.ts"
import { unlocked } from "./Unlock.ts"
import { uploadPayload } from "./Upload.ts"

/** A new order for a package: looked at, asked about, uploaded, signed, sent. */
const submitNew = (file: string, device: string, yes: boolean, flags: OrderValues) =>
  Effect.gen(function* () {
    const record = yield* deviceToWork(device)
    const keys = yield* unlocked
    const proved = yield* provePackage(file, keys)
    const plan = yield* planOrder(record, proved, flags)
    yield* confirmOrder(proved, plan, record, yes)
    yield* uploadPayload(file, proved.payload)
    return yield* submitOrder(keys, plan)
  })

/** An order that was signed before, from its file. */
const submitSigned = (file: string, orderFile: string) =>
  Effect.gen(function* () {
    const home = yield* OperatorHome
    const { root } = yield* requireRoot
    const { digest, envelope, order } = yield* readOrder(orderFile)
    const found = yield* fileDigest(file)
    if (found.digest !== order.payload.digest || found.size_bytes !== order.payload.size_bytes) {
      return yield* failure(`The order ${orderFile} is for another package than ${file}`)
    }
    const known = yield* readJson(sentOrderFile(order.id), SentOrder)
    const sent: SentOrder = known ?? {
      type: "postern/sent-order/v1",
      order: order.id,
      device: order.device,
      lane: order.lane,
      counter: order.counter,
      digest,
      envelope,
      name: "signed elsewhere",
      submitted: false,
      deadline_at_ms: order.deadline_at_ms,
      receipt: null
    }
    yield* uploadPayload(file, order.payload)
    return yield* home.alone(sendOrder(sent, root.version))
  })

const isOrderId = Schema.is(OrderId)
const isRolloutId = Schema.is(RolloutId)

/** An order whose submission was cut off: the very same again, so that it can't be taken twice. */
const resume = (id: string) =>
  Effect.gen(function* () {
    const home = yield* OperatorHome
    const { root } = yield* requireRoot
    const sent = isOrderId(id) ? yield* readJson(sentOrderFile(id), SentOrder) : undefined
    if (sent === undefined) return yield* failure(`No order ${id} was signed here`)
    return yield* home.alone(sendOrder(sent, root.version))
  })

/** Says that a rollout is with the server. */
const sayRollout = (plan: RolloutPlan) =>
  Effect.gen(function* () {
    const devices = plan.phases.reduce((sum, phase) => sum + phase.devices.length, 0)
    if (yield* Json)
      return yield* outJson({
        rollout: plan.id,
        group: plan.group,
        devices,
        phases: plan.phases.map((phase) => phase.devices.length)
      })
    yield* out(`${plan.id}\n`)
    const what = `${counted(devices, "device", "devices")} in ${counted(plan.phases.length, "phase", "phases")}`
    yield* say(`Submitted for ${what}. Next: postern rollouts follow ${plan.id}`)
  })

const optionalText = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(Flag.withMetavar(metavar), Flag.withDescription(description), Flag.optional)

export const submitCommand = Command.make(
  "submit",
  {
    file: Argument.String("file").pipe(Argument.withDescription("A package file"), Argument.optional),
    device: optionalText("device", "DEVICE", "Name, id, or the beginning of an id"),
    order: optionalText("order", "FILE", "An order signed before, by postern package sign"),
    resume: optionalText("resume", "ID", "Send an order or a rollout again whose submission was cut off"),
    yes: yesFlag,
    ...rolloutFlags,
    ...orderFlags
  },
  Effect.fnUntraced(function* ({ device, file, order, resume: resumed, yes, ...flags }) {
    const path = Option.map(file, (given) => resolve(given))
    if (Option.isSome(flags.group)) {
      if (Option.isNone(path) || Option.isSome(device) || Option.isSome(order))
        return yield* usage("A rollout takes FILE --group GROUP, without --device or --order")
      return yield* sayRollout(yield* submitGroup(path.value, flags.group.value, yes, flags))
    }
    if (Option.isSome(resumed) && isRolloutId(resumed.value))
      return yield* sayRollout(yield* resumeGroup(resumed.value))
    const view = Option.isSome(resumed)
      ? yield* resume(resumed.value)
      : Option.isSome(path) && Option.isSome(order)
        ? yield* submitSigned(path.value, resolve(order.value))
        : Option.isSome(path) && Option.isSome(device)
          ? yield* submitNew(path.value, device.value, yes, flags)
          : yield* usage(
              "Say what to submit: FILE --device DEVICE, FILE --group GROUP, FILE --order FILE, or --resume ID"
            )
    if (yield* Json)
      return yield* outJson({ job: view.id, device: view.device, counter: view.counter, state: view.state })
    yield* out(`${view.id}\n`)
    yield* say(`Submitted as number ${view.counter}. Next: postern jobs logs -f ${view.id}`)
  }, withServer)
).pipe(
  Command.withDescription("Upload a package and give a device the order to run it; prints the job's id"),
  Command.withExamples([
    {
      command: "postern jobs submit stats.postern --device pi-cellar",
      description: "Shows what it would do, and asks"
    },
    {
      command: "postern jobs submit stats.postern --device pi-cellar --yes --sealed",
      description: "Results for you alone"
    },
    {
      command: "postern jobs submit stats.postern --group cellars --canary 1 --phases 25%,100% --soak 1h",
      description: "To many, one first; see postern rollouts"
    }
  ])
)

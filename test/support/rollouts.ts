/** Several devices of a server in the test's own process, and rollouts to them. */
import { Clock, Effect } from "effect"
import { type NodeKeyRing, nodeKeyRingFrom } from "../../src/adapters/NodeKeys.ts"
import { decodeBase64 } from "../../src/crypto/Base64.ts"
import { fromUtf8, utf8 } from "../../src/crypto/Bytes.ts"
import { digestOf } from "../../src/crypto/Documents.ts"
import type { HighWater, PollAnswer } from "../../src/schemas/DeviceApi.ts"
import type { DsseEnvelope } from "../../src/schemas/Dsse.ts"
import { type DeviceId, type Digest, Name, type OrderId as Order, OrderId } from "../../src/schemas/Ids.ts"
import { Limits } from "../../src/schemas/Limits.ts"
import {
  type RolloutControl,
  RolloutId,
  type RolloutPhase,
  type RolloutPlan
} from "../../src/schemas/Rollout.ts"
import type { WorkOrder } from "../../src/schemas/WorkOrder.ts"
import { accept, type Fleet, manage, pollBody, putPayload, rootedFleet, send, statementOf } from "./fleet.ts"
import * as parties from "./operators.ts"

const { engine } = parties

const ringOf = (index: number): NodeKeyRing =>
  nodeKeyRingFrom(engine, "device", new Uint8Array(64).fill(40 + index, 0, 32).fill(90 + index, 32))

interface Taken {
  readonly order: WorkOrder
  readonly digest: Digest
}

/** A device that takes what it is given, as a real one would: only what lies above its last place. */
export class RolloutDevice {
  readonly name: string
  readonly ring: NodeKeyRing
  readonly taken: Array<Taken> = []
  readonly stops = new Set<Order>()
  readonly cancels: Array<DsseEnvelope> = []
  private readonly ended = new Set<Order>()
  private readonly fleet: () => Fleet
  private mark: HighWater | null = null
  private receipts = 0
  private previous: Digest | null = null

  constructor(index: number, fleet: () => Fleet) {
    this.name = `pi-${index}`
    this.ring = ringOf(index)
    this.fleet = fleet
  }

  get id(): DeviceId {
    return this.ring.id as DeviceId
  }

  /** Those it has begun and not ended. */
  get running(): ReadonlyArray<Taken> {
    return this.taken.filter(({ order }) => !this.ended.has(order.id))
  }

  readonly poll = Effect.suspend(() =>
    Effect.gen({ self: this }, function* () {
      const told = { high_water: this.mark, last_receipt: this.receipts }
      const atMs = yield* Clock.currentTimeMillis
      const statement = statementOf({ ...told, at_ms: atMs }, this.ring)
      const body = pollBody({ ...told, statement })
      const reply = yield* send(this.fleet(), "POST", "/poll", { body, by: this.ring })
      if (reply.status !== 200) throw new Error(`a poll was answered ${reply.status} ${reply.code}`)
      const answer = reply.json as PollAnswer
      if (answer.objection !== null) throw new Error(`the server objects: ${answer.objection}`)
      for (const order of answer.stops) this.stops.add(order)
      this.cancels.push(...answer.cancels)
      for (const envelope of answer.orders) this.take(envelope)
      return answer
    })
  )

  private take(envelope: DsseEnvelope): void {
    const bytes = decodeBase64(envelope.payload) ?? new Uint8Array(0)
    const order = JSON.parse(fromUtf8(bytes) ?? "null") as WorkOrder
    if (this.mark !== null && order.counter <= this.mark.counter)
      throw new Error(`${this.name} is offered place ${order.counter} behind ${this.mark.counter}`)
    const digest = digestOf(engine, bytes)
    this.mark = { root_version: order.root_version, counter: order.counter, order_digest: digest }
    this.taken.push({ order, digest })
  }

  /** Ends everything it has with a receipt. */
  end(state: "succeeded" | "failed" | "canceled") {
    return Effect.gen({ self: this }, function* () {
      for (const taken of this.running) {
        const nowMs = yield* Clock.currentTimeMillis
        const failed = state === "succeeded" ? {} : { reason: "exit_code" as const, exit_code: 1 }
        const receipt = parties.signedReceipt(
          this.receipts + 1,
          this.previous,
          taken,
          {
            state,
            device: this.id,
            received_at_ms: nowMs,
            started_at_ms: nowMs,
            ended_at_ms: nowMs,
            ...failed
          },
          this.ring
        )
        const reply = yield* send(this.fleet(), "POST", "/receipts", {
          body: { receipts: [receipt.envelope] },
          by: this.ring
        })
        if (reply.status !== 200) throw new Error(`a receipt was answered ${reply.status} ${reply.code}`)
        this.receipts++
        this.previous = receipt.digest
        this.ended.add(taken.order.id)
      }
    })
  }
}

export interface PhaseTerms extends Partial<Omit<RolloutPhase, "devices">> {
  readonly size: number
}

const orderIdOf = (rollout: number, index: number): Order =>
  OrderId.make(
    `01900000-0000-7000-8${rollout.toString(16).padStart(3, "0")}-${(index + 1).toString(16).padStart(12, "0")}`
  )

export const rolloutIdOf = (index: number): RolloutId =>
  RolloutId.make(`rol_${"abcdefghijklmnopqrstuvwxyz".slice(index % 26, (index % 26) + 1).repeat(26)}`)

/** A plan over devices, in their order. */
export const planOf = (
  devices: ReadonlyArray<RolloutDevice>,
  payload: WorkOrder["payload"],
  nowMs: number,
  phases: ReadonlyArray<PhaseTerms>,
  changes: Partial<RolloutPlan> = {},
  index = 0
): RolloutPlan => {
  let from = 0
  return {
    type: "postern/rollout/v1",
    id: rolloutIdOf(index),
    name: "update",
    group: Name.make("cellars"),
    root_version: 1,
    issued_at_ms: nowMs,
    expires_at_ms: nowMs + 7 * 86_400_000,
    lane: "job",
    payload,
    maximum_failures: devices.length,
    phases: phases.map(({ size, ...terms }) => {
      const part = devices.slice(from, from + size)
      const first = from
      from += size
      return {
        success_percent: 100,
        soak_ms: 60_000,
        timeout_ms: 3_600_000,
        ...terms,
        devices: part.map(({ id }, place) => ({ device: id, order: orderIdOf(index, first + place) }))
      }
    }),
    ...changes
  }
}

export const operatorToken = `postern-token-v1.${"b".repeat(52)}`

/** A fleet with so many accepted devices, and an operator's token. */
export const makeRollouts = (count: number) =>
  Effect.gen(function* () {
    let fleet = yield* rootedFleet
    const devices = Array.from({ length: count }, (_, index) => new RolloutDevice(index, () => fleet))
    for (const device of devices) yield* accept(fleet, device.ring, device.name)
    const nowMs = yield* Clock.currentTimeMillis
    const hash = [...engine.sha256(utf8(operatorToken))]
      .map((byte) => byte.toString(16).padStart(2, "0"))
      .join("")
    yield* fleet.store.addToken("alice", "operator", hash, nowMs)
    const payload = yield* putPayload(fleet, utf8("the package"))

    /** Signs an order for a place. */
    const signOrder = (changes: Partial<WorkOrder> & Pick<WorkOrder, "id" | "device" | "counter">) =>
      Effect.map(Clock.currentTimeMillis, (atMs) =>
        parties.signedOrder(changes.counter, {
          issued_at_ms: atMs,
          expires_at_ms: atMs + 8 * 86_400_000,
          deadline_at_ms: atMs + 8 * 86_400_000,
          payload,
          ...changes
        })
      )
    const post = (path: string, body: unknown) =>
      manage(fleet, operatorToken, "POST", `/api/management/v1${path}`, body)
    const get = (path: string) => manage(fleet, operatorToken, "GET", `/api/management/v1${path}`)
    return {
      devices,
      payload,
      signOrder,
      post,
      get,
      fleet: () => fleet,
      /** Goes on with another life of the server over the same disk. */
      replace: (next: Fleet) => {
        fleet = next
      },
      submitOrder: Effect.fnUntraced(function* (
        order: Partial<WorkOrder> & Pick<WorkOrder, "id" | "device" | "counter">
      ) {
        const signed = yield* signOrder(order)
        return yield* post("/jobs", signed.envelope)
      }),
      /** The place that the server names for a device's next order. */
      nextCounter: (device: RolloutDevice) =>
        Effect.map(fleet.store.sequence(device.id), (next) => next.nextCounter),
      open: (plan: RolloutPlan) => post("/rollouts", parties.signAsOperator("rollout", plan).envelope),
      steer: Effect.fnUntraced(function* (
        id: RolloutId,
        action: RolloutControl["action"],
        sequence: number,
        phase: number
      ) {
        const control: RolloutControl = {
          type: "postern/rollout-control/v1",
          rollout: id,
          action,
          phase,
          sequence,
          root_version: 1,
          issued_at_ms: yield* Clock.currentTimeMillis
        }
        return yield* post(
          `/rollouts/${id}/control`,
          parties.signAsOperator("rolloutControl", control).envelope
        )
      })
    }
  })
export type Rollouts = Effect.Success<ReturnType<typeof makeRollouts>>

/** Opens a plan and submits all its orders. */
export const begin = Effect.fnUntraced(function* (world: Rollouts, plan: RolloutPlan) {
  const opened = yield* world.open(plan)
  if (opened.status !== 200)
    throw new Error(`the plan was answered ${opened.status}: ${JSON.stringify(opened.json)}`)
  for (const { device, order } of plan.phases.flatMap((phase) => phase.devices)) {
    const found = world.devices.find(({ id }) => id === device) as RolloutDevice
    const counter = (yield* world.nextCounter(found)) + Limits.rolloutReserve
    const reply = yield* world.submitOrder({ id: order, device, counter })
    if (reply.status !== 200)
      throw new Error(`an order was answered ${reply.status}: ${JSON.stringify(reply.json)}`)
  }
})

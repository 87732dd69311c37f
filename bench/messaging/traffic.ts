/** Private messages from some agents to others through broker services, as fast as they go or at a pace. */
import type { BenchAgent } from "./agents.ts"
import { privateMessage } from "./agents.ts"
import type { Prepared } from "./MqttLine.ts"
import type { Broker } from "./setting.ts"

/** Bytes of text in each message: a reading with its circumstances. */
export const bodyBytes = 400

export interface Traffic {
  readonly senders: ReadonlyArray<BenchAgent>
  readonly receivers: ReadonlyArray<BenchAgent>
  /** How many of the receivers each message is for. */
  readonly fanOut: number
}

/** Signed and sealed before anything is measured: one list for each sender. */
const prepareAll = ({ fanOut, receivers, senders }: Traffic, messages: number) =>
  senders.map((sender, first) =>
    Array.from({ length: Math.ceil(messages / senders.length) }, (_, index) => {
      const to = Array.from(
        { length: fanOut },
        (_each, place) => (receivers[(first + index + place) % receivers.length] as BenchAgent).name
      )
      return privateMessage(sender, to, bodyBytes)
    })
  )

/** Counts what comes, and tells when all of it has. */
const counting = (
  receivers: ReadonlyArray<BenchAgent>,
  deliveries: number,
  each: (receiver: number) => void
) => {
  let left = deliveries
  return new Promise<void>((resolve) => {
    for (const [index, { line }] of receivers.entries()) {
      line.received = () => {
        each(index)
        if (--left === 0) resolve()
      }
    }
  })
}

/** Publications of one sender that are not acknowledged yet. */
const window = 8

export interface Flow {
  readonly messages: number
  readonly deliveries: number
  /** From the first publication to the last delivery. */
  readonly wallMs: number
  /** Processor time of all threads of the server. */
  readonly cpuMs: number
}

/** Sends so many messages, each sender as fast as it is acknowledged, and waits until all are delivered. */
export const flood = async (server: Broker, traffic: Traffic, messages: number): Promise<Flow> => {
  const prepared = prepareAll(traffic, messages)
  const sent = prepared.reduce((sum, list) => sum + list.length, 0)
  const all = counting(traffic.receivers, sent * traffic.fanOut, () => undefined)
  const before = await server.process.usage(false)
  const startedMs = performance.now()
  const sending = prepared.map(async (list, index) => {
    const { line } = traffic.senders[index] as BenchAgent
    let next = 0
    const lane = async () => {
      for (let one = list[next++]; one !== undefined; one = list[next++]) await line.publish(one)
    }
    await Promise.all(Array.from({ length: window }, lane))
  })
  await Promise.all([...sending, all])
  const wallMs = performance.now() - startedMs
  const { cpuMs } = await server.process.usage(false)
  return { messages: sent, deliveries: sent * traffic.fanOut, wallMs, cpuMs: cpuMs - before.cpuMs }
}

/**
 * Sends one message after the other at a pace, whether or not earlier ones have arrived, and gives how long each took from
 * when it was due to its delivery, in milliseconds and sorted.
 */
export const pace = async (
  traffic: Traffic,
  messages: number,
  perSecond: number
): Promise<ReadonlyArray<number>> => {
  /** By receiver: what comes to one comes in the order in which it was due, but for a message or two. */
  const dueMs = traffic.receivers.map((): Array<number> => [])
  const tookMs: Array<number> = []
  const lists = prepareAll(traffic, messages)
  const [first] = lists
  const rounds = first?.length ?? 0
  const all = counting(traffic.receivers, rounds * lists.length, (receiver) => {
    tookMs.push(performance.now() - (dueMs[receiver]?.shift() as number))
  })
  const acknowledged: Array<Promise<void>> = []
  const startedMs = performance.now()
  for (let index = 0; index < rounds * lists.length; index++) {
    const due = startedMs + (index / perSecond) * 1_000
    while (performance.now() < due) await new Promise((resolve) => setTimeout(resolve, 1))
    const [sender, turn] = [index % lists.length, Math.floor(index / lists.length)]
    dueMs[(sender + turn) % traffic.receivers.length]?.push(due)
    const one = lists[sender]?.[turn] as Prepared
    acknowledged.push((traffic.senders[sender] as BenchAgent).line.publish(one))
  }
  await Promise.all([...acknowledged, all])
  return tookMs.sort((a, b) => a - b)
}

/** Agents of built devices, asked by the socket in their state folder (`src/schemas/AgentLocal`). */
import { connect } from "node:net"
import { join } from "node:path"
import type { BuiltDevice } from "./BuiltFleet.ts"
import { waitUntil } from "./Program.ts"

const patienceMs = 120_000

/** A message as the socket gives it. */
export interface CameMessage {
  readonly place: number
  readonly message: Readonly<Record<string, unknown>> & { readonly body: unknown }
}

export interface AgentState {
  readonly name: string | null
  readonly state: string
  readonly detail: string
  readonly queued: number
  readonly waiting: number
  readonly refused: Readonly<Record<string, number>>
}

/** Asks once, on a connection of its own; fails where the agent refuses or is not there. */
export const askAgent = <A>(device: BuiltDevice, request: Readonly<Record<string, unknown>>): Promise<A> =>
  new Promise((resolve, reject) => {
    const socket = connect(join(device.state, "agent.sock"))
    let text = ""
    socket.setEncoding("utf8")
    socket.setTimeout(60_000, () => socket.destroy(new Error("the agent did not answer within a minute")))
    socket.once("error", reject)
    socket.once("close", () => reject(new Error("the agent hung up")))
    socket.on("data", (piece: string) => {
      text += piece
      if (!text.includes("\n")) return
      const answer = JSON.parse(text.slice(0, text.indexOf("\n")))
      socket.destroy()
      if (answer.ok) resolve(answer.value)
      else reject(new Error(`${answer.code}: ${answer.error}`))
    })
    socket.write(`${JSON.stringify({ id: 1, ...request })}\n`)
  })

export const agentState = async (device: BuiltDevice): Promise<AgentState> =>
  (await askAgent<{ readonly agent: AgentState }>(device, { request: "report" })).agent

/** Waits until the agent's report is as wanted; an agent that does not answer yet is asked again. */
export const agentWhen = (
  device: BuiltDevice,
  what: string,
  holds: (state: AgentState) => boolean
): Promise<AgentState> => {
  let last: unknown
  return waitUntil(
    `${device.name}'s agent: ${what}`,
    async () => {
      const state = await agentState(device).catch((error: Error) => {
        last = error.message
        return undefined
      })
      if (state === undefined) return undefined
      last = state
      return holds(state) ? state : undefined
    },
    patienceMs,
    () => `${JSON.stringify(last)}\n${device.program.log().slice(-3_000)}`
  )
}

export const isKnown = (device: BuiltDevice): Promise<AgentState> =>
  agentWhen(device, "to be known", ({ state }) => state === "known")

export const sendBy = (
  device: BuiltDevice,
  level: string,
  to: ReadonlyArray<string>,
  body: unknown,
  subject = ""
): Promise<string> => askAgent(device, { request: "send", level, to, subject, body, lifetime_ms: null })

/** What is in an agent's inbox, once there are so many; they stay there. */
export const inboxOf = async (device: BuiltDevice, count: number): Promise<ReadonlyArray<CameMessage>> => {
  await agentWhen(device, `${count} messages`, ({ waiting }) => waiting >= count)
  const all: Array<CameMessage> = []
  // What a connection has in hand when it ends is given out again, so each is told that it is done.
  for (;;) {
    const some = await askAgent<ReadonlyArray<CameMessage>>(device, {
      request: "take",
      maximum: 64,
      wait_ms: 0
    })
    if (some.length === 0) return all
    all.push(...some)
    await askAgent(device, { request: "done", places: some.map(({ place }) => place) })
  }
}

/** Whom an agent sees. */
export const peersOf = async (device: BuiltDevice): Promise<ReadonlyArray<string>> =>
  (await askAgent<ReadonlyArray<{ readonly agent: string }>>(device, { request: "peers" }))
    .map(({ agent }) => agent)
    .sort()

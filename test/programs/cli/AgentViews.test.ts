import { describe, expect, it } from "@effect/vitest"
import {
  agentRow,
  agentTableHeader,
  agentText,
  messageRefusalTexts,
  messagingLines,
  messagingNotes,
  refusalTable
} from "../../../src/programs/cli/AgentViews.ts"
import { table } from "../../../src/programs/cli/Text.ts"
import type { Name } from "../../../src/schemas/Ids.ts"
import { MessageRefusal } from "../../../src/schemas/Message.ts"
import type { AgentView, MessagingStatus } from "../../../src/schemas/MessagingViews.ts"
import { device } from "../../support/operators.ts"

const nowMs = 10_000_000
const hidden = "\u001b[2J\u202e"

const agent: AgentView = {
  agent: "pi-cellar" as Name,
  device: device.id as AgentView["device"],
  signing_key: device.signingKey,
  agreement: { key: device.agreementKey, version: 2 },
  status: "DU",
  status_at_ms: nowMs - 90_000,
  visible: false,
  edge_devices: [`lamp${hidden}`, "door"],
  undelivered: 2,
  queued: 1
}

const status: MessagingStatus = {
  signing_key: device.signingKey,
  agents: { C: 2, DG: 0, DU: 1 },
  visible: 1,
  undelivered: 1,
  queued: 0,
  refusals: { replayed: 3, expired: 1 },
  last_refusal_at_ms: nowMs - 60_000,
  in_root: true,
  broker: { state: "open", addresses: [], connected: 2 }
}
const server = { messaging: status, messaging_problem: null, root_version: 1, time_ms: nowMs }

describe("how agents are shown", () => {
  it("says who is there, and makes visible what a device put into its words", () => {
    const shown = table(agentTableHeader, [agentRow(agent, nowMs)])
    expect(shown.split("\n")[1]).toMatch(
      /^pi-cellar {2}dev_\w{8} {2}lost {4}1m 30s ago {2}no {7}lamp\\x1b\[2J\\u\{202e\} door {2}3$/
    )
    const text = agentText(
      { agent, refusals: [{ agent: agent.agent, code: "replayed", count: 2, last_at_ms: nowMs - 1_000 }] },
      nowMs
    )
    expect(text).not.toContain("\u001b")
    expect(text).toMatch(/status: +lost \(DU\), 1m 30s ago/)
    expect(text).toMatch(/waiting: +1 message in its session, 2 not there yet/)
    expect(text).toMatch(/Refused of it:\n.*\npi-cellar {2}replayed {2}2 {6}1 s ago {2}came before\n$/)
    expect(agentText({ agent: { ...agent, undelivered: 0, queued: 0 }, refusals: [] }, nowMs)).toMatch(
      /waiting: +nothing\n$/
    )
  })

  it("gives each reason of a refusal a meaning, and counts strangers together", () => {
    expect(Object.keys(messageRefusalTexts).sort()).toEqual([...MessageRefusal.literals].sort())
    expect(refusalTable([], nowMs)).toBe("Nothing was refused.\n")
    expect(
      refusalTable([{ agent: null, code: "bad_credentials", count: 7, last_at_ms: nowMs }], nowMs)
    ).toMatch(/\(no agent\) {2}bad_credentials {2}7 {6}0 ms ago {2}somebody who could not prove the name/)
  })
})

describe("what status tells of messages", () => {
  it("is one line, and none where the server carries none", () => {
    expect(messagingLines(server)).toEqual([
      ["messages", "3 agents (2 connected, 1 lost), 2 connections, 1 message waits, 4 refused"]
    ])
    expect(messagingLines({ messaging: null })).toEqual([])
    const quiet = { ...status, agents: { C: 0, DG: 0, DU: 0 }, undelivered: 0, refusals: {} }
    expect(messagingLines({ messaging: { ...quiet, broker: { ...status.broker, connected: 0 } } })).toEqual([
      ["messages", "no agents yet, 0 connections"]
    ])
  })

  it("is a note only where something is wrong, with what to do", () => {
    const notes = (changes: Partial<MessagingStatus>, more: Partial<typeof server> = {}) =>
      messagingNotes({ ...server, ...more, messaging: { ...status, ...changes } })
    expect(notes({ last_refusal_at_ms: null })).toEqual([])
    expect(notes({ last_refusal_at_ms: nowMs - 2 * 3_600_000 })).toEqual([])
    expect(notes({})).toEqual(["Messages were refused, the last one 1m ago: see postern agents refusals."])
    const [down] = notes({ broker: { state: "down", addresses: [], connected: null } })
    expect(down).toMatch(/broker is down.*postern ps/)
    const [unnamed] = notes({ in_root: false })
    expect(unnamed).toMatch(
      /--broker-services server, postern keys root sign next.json, postern keys root publish/
    )
    // Before there is any root, the first one will name the key.
    expect(notes({ in_root: false, last_refusal_at_ms: null }, { root_version: null as never })).toEqual([])
    expect(messagingNotes({ ...server, messaging: null, messaging_problem: `it broke${hidden}` })).toEqual([
      "Messages: it broke\\x1b[2J\\u{202e}."
    ])
    expect(messagingNotes({ ...server, messaging: null })).toEqual([])
  })
})

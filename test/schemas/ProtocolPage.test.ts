import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import type { Schema } from "effect"
import { describe, expect, it } from "vitest"
import {
  AgentStatus,
  ConnectProof,
  Directory,
  DirectoryEntry,
  DocumentLimits,
  Handshake,
  HandshakeAnswer,
  Ping
} from "../../src/schemas/Agents.ts"
import { DeviceApiErrorCode, EnrolmentAnswer } from "../../src/schemas/DeviceApi.ts"
import { Admission, EnrolmentRequest, Invitation, Preauthorisation } from "../../src/schemas/Enrolment.ts"
import {
  Delivery,
  Message,
  MessageLimits,
  MessageRefusal,
  PublicMessage,
  Sealed
} from "../../src/schemas/Message.ts"
import { MessagingOffer } from "../../src/schemas/MessagingOffer.ts"
import { Statement } from "../../src/schemas/Statement.ts"
import { topicRights } from "../../src/schemas/TopicRights.ts"
import { brokerInboxes, inboxes } from "../../src/schemas/Topics.ts"
import { TrustRoot } from "../../src/schemas/TrustRoot.ts"

const root = join(import.meta.dirname, "../..")
const page = readFileSync(join(root, "docs/protocol.md"), "utf8")

/** The text below a heading, up to the next one. */
const section = (heading: string): string => {
  const begin = page.indexOf(`\n${heading}\n`)
  expect(begin, `the heading ${heading}`).toBeGreaterThan(0)
  const rest = page.slice(begin + heading.length + 2)
  return rest.slice(0, rest.search(/\n#{2,3} /))
}

/** First cells of a table's rows, without the marks of code; of the table that is the n-th of a text. */
const rows = (text: string, index = 0): ReadonlyArray<string> => {
  const tables = text.split(/\n\n/).filter((part) => /^\s*\|/.test(part))
  const lines = (tables[index] ?? "").trim().split("\n").slice(2)
  return lines.map((line) => (line.split("|")[1] ?? "").trim().replaceAll("`", ""))
}

type Struct = Schema.Top & { readonly fields: Readonly<Record<string, unknown>> }
const members = (schema: unknown): ReadonlyArray<string> => Object.keys((schema as Struct).fields).sort()

const documents: ReadonlyArray<[heading: string, schema: unknown, table?: number]> = [
  ["### `postern/mqtt-connect/v1`", ConnectProof],
  ["### `postern/handshake/v1`", Handshake],
  ["### `postern/handshake-answer/v1`", HandshakeAnswer],
  ["### `postern/status/v1`", AgentStatus],
  ["### `postern/directory/v1`", Directory],
  ["### `postern/directory/v1`", DirectoryEntry, 1],
  ["### `postern/ping/v1` and `postern/pong/v1`", Ping],
  ["### `postern/message/v1`", Message],
  ["### `postern/sealed/v1`", Sealed],
  ["### `postern/delivery/v1`", Delivery],
  ["### `postern/public/v1`", PublicMessage],
  ["### The invitation", Invitation],
  ["### Signed requests", Statement],
  ["### Enrolment", EnrolmentRequest],
  ["### Enrolment", EnrolmentAnswer, 1],
  ["### The offer", MessagingOffer]
]

describe("the page on the wire", () => {
  it.each(documents)("names the members under %s, and no others", (heading, schema, table = 0) => {
    expect([...rows(section(heading), table)].sort()).toEqual(members(schema))
  })

  it("names the members of decisions and of the trust root", () => {
    const text = section("### Enrolment")
    for (const [kind, schema] of [
      ["admission", Admission],
      ["preauthorisation", Preauthorisation]
    ] as const) {
      const cells = new RegExp(`\\| \`${kind}\` \\| (\`type\`[^|]+)\\|`).exec(text)?.[1] ?? ""
      expect([...cells.matchAll(/`([a-z_]+)`/g)].map(([, name]) => name).sort()).toEqual(members(schema))
    }
    const ofRoot = section("### The trust root")
    for (const member of members(TrustRoot)) expect(ofRoot).toContain(`\`${member}\``)
  })

  it("names every limit with its value", () => {
    const lines = section("## Limits").split("\n")
    const limits = { ...MessageLimits, ...DocumentLimits }
    expect([...rows(section("## Limits"))].sort()).toEqual(Object.keys(limits).sort())
    for (const [name, value] of Object.entries(limits)) {
      const line = lines.find((each) => each.startsWith(`| \`${name}\` |`))
      expect(line?.split("|")[2]?.trim().replaceAll(",", ""), name).toBe(`${value}`)
    }
  })

  it("names every refusal", () => {
    expect(rows(section("## Refusal codes"))).toEqual(MessageRefusal.literals)
    const ofRequests = section("### Signed requests")
    for (const code of DeviceApiErrorCode.literals) expect(ofRequests).toContain(`\`${code}\``)
  })

  it("has the table of rights as it is, and every topic", () => {
    const text = section("## Topics and rights")
    const table = topicRights.map(
      ({ may, pattern, role, what }) => `| ${role} | ${may} | \`${pattern}\` | ${what} |`
    )
    expect(text).toContain(table.join("\n"))
    for (const inbox of inboxes) expect(text).toContain(`\`R/AGENT/${inbox}\``)
    for (const inbox of brokerInboxes) expect(text).toContain(`\`R/broker-services/${inbox}\``)
  })

  it("points to what is there", () => {
    const links = [...page.matchAll(/\]\(([^)#]+)(?:#[^)]*)?\)/g)].map(([, target]) => target as string)
    expect(links.filter((each) => !/^https?:/.test(each) && !existsSync(join(root, "docs", each)))).toEqual(
      []
    )
    const headings = new Set(
      [...page.matchAll(/^#{2,3} (.+)$/gm)].map(([, text]) =>
        (text as string)
          .toLowerCase()
          .replace(/[^a-z0-9 -]/g, "")
          .replaceAll(" ", "-")
      )
    )
    const anchors = [...page.matchAll(/\]\(#([^)]+)\)/g)].map(([, anchor]) => anchor as string)
    expect(anchors.filter((anchor) => !headings.has(anchor))).toEqual([])
  })
})

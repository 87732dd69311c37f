import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { Result } from "effect"
import { describe, expect, it } from "vitest"
import { type VectorFile, vectorFiles, vectorText } from "../../scripts/lib/messaging-vector-files.ts"
import type { Judged } from "../../scripts/lib/messaging-vectors.ts"
import { NativeCrypto } from "../../src/adapters/NativeCrypto.ts"
import type { Engine } from "../../src/crypto/Engine.ts"
import {
  readConnectProof,
  readDirectory,
  readHandshake,
  readHandshakeAnswer,
  readPing,
  readStatus
} from "../../src/crypto/Handshakes.ts"
import { decodeHex } from "../../src/crypto/Hex.ts"
import type { Judged as Verdict } from "../../src/crypto/Messages.ts"
import { NobleEngine } from "../../src/crypto/NobleEngine.ts"
import { receive } from "../../src/crypto/Reception.ts"
import { judgeArrival } from "../../src/crypto/Relay.ts"
import { MessageRefusal } from "../../src/schemas/Message.ts"
import { type AgentName, brokerServices } from "../../src/schemas/Topics.ts"

const folder = join(import.meta.dirname, "../vectors")
const names = readdirSync(folder).sort()
const read = (name: string) => JSON.parse(readFileSync(join(folder, name), "utf8")) as VectorFile

const readers = {
  connect: readConnectProof,
  handshake: readHandshake,
  answer: readHandshakeAnswer,
  status: readStatus,
  ping: readPing,
  directory: readDirectory
}

/** What the program makes of a case, with keys from the file alone. */
const judge = (engine: Engine, file: VectorFile, one: Judged): Verdict<unknown> => {
  const text = typeof one.wire === "string" ? one.wire : one.wire.map(([part, n]) => part.repeat(n)).join("")
  const wire = new TextEncoder().encode(text)
  if (one.by === "reader") return readers[one.kind as keyof typeof readers](engine, wire)
  const party = (name: string) => {
    const keys = file.keys.find((each) => each.name === name) as VectorFile["keys"][number]
    const secret = decodeHex(keys.agreement_secret) as Uint8Array
    const agreements = new Map([[keys.agreement_key, { secret, public: engine.x25519.publicKey(secret) }]])
    const seed = decodeHex(keys.signing_seed) as Uint8Array
    return { name: keys.name, agreements, signer: { seed, signingKey: keys.signing_key } }
  }
  const inbox = one.inbox as "protected" | "private"
  const nowMs = one.now_ms as number
  const services = party(brokerServices)
  if (one.by === "agent") {
    const { agreements, name } = party(one.agent as string)
    const receiver = {
      name,
      agreements,
      services: new Set([services.signer.signingKey]),
      keyOf: (agent: AgentName) => (agent === "alice" ? party("alice").signer.signingKey : undefined)
    }
    return receive(engine, receiver, inbox, wire, nowMs)
  }
  const from = party(one.from as string)
  const senderKey = from.signer.signingKey
  return judgeArrival(engine, services, { inbox, from: from.name, senderKey, wire, nowMs })
}

describe.each([NativeCrypto, NobleEngine])("the vectors of messaging, by the engine $name", (engine) => {
  const fresh = vectorFiles(engine)

  it("are all there", () => {
    expect(names).toEqual(Object.keys(fresh).sort())
  })

  it.each(names)("in %s are what is made: else run node scripts/vectors.ts", (name) => {
    expect(readFileSync(join(folder, name), "utf8")).toBe(vectorText(fresh[name] as VectorFile))
  })

  it.each(names)("in %s are judged as they say", (name) => {
    const file = read(name)
    for (const one of file.judged ?? []) {
      const judged = judge(engine, file, one)
      expect([one.name, Result.isFailure(judged) ? judged.failure.code : "taken"]).toEqual([
        one.name,
        one.verdict
      ])
      if (one.message !== undefined) expect(Result.getOrThrow(judged)).toMatchObject(one.message as object)
    }
  })
})

it("the refusals have a vector each, but for those that depend on what came before or on the fleet", () => {
  const codes = new Set((read("refusals.json").judged ?? []).map(({ verdict }) => verdict))
  const others = MessageRefusal.literals.filter((code) => !codes.has(code))
  expect(others).toEqual([
    "unknown_sender",
    "unknown_recipient",
    "not_permitted",
    "replayed",
    "overloaded",
    "bad_credentials"
  ])
})

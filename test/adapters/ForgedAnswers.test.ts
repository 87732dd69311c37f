import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import type { ApiRequest, ApiResponse } from "../../src/adapters/http/Exchange.ts"
import { handlerTransport } from "../../src/adapters/http/Transport.ts"
import { encodeBase64 } from "../../src/crypto/Base64.ts"
import { utf8 } from "../../src/crypto/Bytes.ts"
import type { Nonce, ServerId } from "../../src/schemas/Ids.ts"
import { statementHeader } from "../../src/schemas/Statement.ts"
import {
  addresses,
  answering,
  type Bend,
  digestOfBytes,
  linkOver,
  ok,
  otherServer,
  report,
  rootOf,
  server,
  signAnswer
} from "./support/server.ts"

/** The reason an answer is not believed. */
const distrustOf = Effect.fnUntraced(function* (answer: (request: ApiRequest) => ApiResponse) {
  const { link } = yield* answering(answer)
  const error = yield* Effect.flip(link.progress(report))
  assert.strictEqual(error._tag, "ServerUntrusted")
  return error._tag === "ServerUntrusted" ? error.reason : ""
})

const bent = (bend: Bend) => (request: ApiRequest) => signAnswer(request, ok, bend)
const otherNonce = "b".repeat(26) as Nonce

const forgeries: ReadonlyArray<
  readonly [what: string, reason: RegExp, answer: (request: ApiRequest) => ApiResponse]
> = [
  ["without a signature", /is not signed/, (request) => ({ ...signAnswer(request, ok), headers: {} })],
  [
    "with a signature that is no base64",
    /not readable/,
    bent({ response: (response) => ({ ...response, headers: { [statementHeader]: "?" } }) })
  ],
  [
    "with a signature that is no JSON",
    /not readable/,
    bent({
      response: (response) => ({ ...response, headers: { [statementHeader]: encodeBase64(utf8("{")) } })
    })
  ],
  [
    "with an endless signature",
    /not readable/,
    bent({ response: (response) => ({ ...response, headers: { [statementHeader]: "A".repeat(20_000) } }) })
  ],
  ["signed by another server of the role", /unknown_key|bad_signature/, bent({ signer: otherServer })],
  [
    "signed by another server under this one's name",
    /bad_signature/,
    bent({ signer: otherServer, keyId: server.id })
  ],
  [
    "that another server made for itself",
    /unknown_key/,
    bent({ signer: otherServer, statement: (said) => ({ ...said, server: otherServer.id as ServerId }) })
  ],
  [
    "about another server",
    /its server is not/,
    bent({ statement: (said) => ({ ...said, server: otherServer.id as ServerId }) })
  ],
  [
    "for another device",
    /its device is not/,
    bent({ statement: (said) => ({ ...said, device: `dev_${"a".repeat(52)}` as typeof said.device }) })
  ],
  ["to another request", /its nonce is not/, bent({ statement: (said) => ({ ...said, nonce: otherNonce }) })],
  [
    "with another status",
    /its status is not/,
    bent({ response: (response) => ({ ...response, status: 201 }) })
  ],
  [
    "with a changed body",
    /its body is not/,
    bent({ response: (response) => ({ ...response, body: utf8(`{"ok": true}`) }) })
  ],
  [
    "with an older root",
    /root version 2 after it had 3/,
    (request) => signAnswer(request, { ...ok, rootVersion: 2 })
  ],
  [
    "without a root",
    /root version none after it had 3/,
    (request) => signAnswer(request, { ...ok, rootVersion: null })
  ],
  ["of another shape", /expected shape/, (request) => signAnswer(request, { ...ok, value: { ok: false } })],
  [
    "with a member nobody knows",
    /expected shape/,
    (request) => signAnswer(request, { ...ok, value: { ok: true, run: "x" } })
  ],
  ["that is no JSON", /is no JSON/, (request) => signAnswer(request, { ...ok, value: utf8("{") })],
  [
    "longer than allowed",
    /longer than/,
    bent({ response: (response) => ({ ...response, body: new Uint8Array(4 * 1024 * 1024 + 1) }) })
  ],
  [
    "that redirects",
    /is not signed/,
    () => ({ status: 302, headers: { location: "http://evil.test/" }, body: new Uint8Array(0) })
  ],
  [
    "by a captive portal",
    /is not signed/,
    () => ({ status: 200, headers: { "content-type": "text/html" }, body: utf8("<html>log in</html>") })
  ]
]

describe("a forged answer", () => {
  it.effect.each(forgeries.map(([what, reason, answer]) => ({ what, reason, answer })))(
    "$what is not believed",
    ({ answer, reason }) => Effect.map(distrustOf(answer), (found) => assert.match(found, reason))
  )

  it.effect("that is an old answer sent again is not believed", () =>
    Effect.gen(function* () {
      let kept: ApiResponse | undefined
      const { link } = yield* answering((request) => (kept ??= signAnswer(request, ok)))
      yield* link.progress(report)
      const error = yield* Effect.flip(link.progress(report))
      assert.match(error._tag === "ServerUntrusted" ? error.reason : error._tag, /its nonce is not/)
    })
  )

  it.effect("with a root version that falls is not believed, even above what the device holds", () =>
    Effect.gen(function* () {
      const versions = [3, 7, 6, 7]
      const { link } = yield* linkOver(
        handlerTransport((origin) =>
          origin === addresses[0]
            ? (request) =>
                Effect.sync(() => signAnswer(request, { ...ok, rootVersion: versions.shift() ?? null }))
            : undefined
        )
      )
      assert.strictEqual((yield* link.progress(report)).rootVersion, 3)
      assert.strictEqual((yield* link.progress(report)).rootVersion, 7)
      yield* link.trust({ root: rootOf(3), server: server.id as ServerId })
      assert.strictEqual((yield* Effect.flip(link.progress(report)))._tag, "ServerUntrusted")
      assert.strictEqual((yield* link.progress(report)).rootVersion, 7)
    })
  )

  it.effect("to a download is not believed: another payload, another beginning", () =>
    Effect.gen(function* () {
      const bytes = utf8("0123456789")
      const drain = Effect.fnUntraced(function* (answer: (request: ApiRequest) => ApiResponse) {
        const { link } = yield* answering(answer)
        const error = yield* Effect.flip(Stream.runDrain(link.payload(digestOfBytes(bytes), 4)))
        return error._tag === "ServerUntrusted" ? error.reason : error._tag
      })
      const partial = { ...ok, status: 206, value: bytes }
      const range = (text: string): Bend => ({
        response: (response) => ({ ...response, headers: { ...response.headers, "content-range": text } })
      })
      assert.match(
        yield* drain((request) =>
          signAnswer(request, { ...partial, value: utf8("other") }, range("bytes 4-9/10"))
        ),
        /its body is not/
      )
      assert.match(
        yield* drain((request) => signAnswer(request, partial, range("bytes 5-9/10"))),
        /does not begin at byte 4/
      )
      assert.match(
        yield* drain((request) => signAnswer(request, { ...partial, status: 200 })),
        /does not begin at byte 4/
      )
    })
  )
})

import { createHash } from "node:crypto"
import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import fc from "fast-check"
import { createSignatureSync, verifySignature } from "http-message-sig"
import { NativeCrypto } from "../../src/adapters/NativeCrypto.ts"
import { decodeBase64, encodeBase64 } from "../../src/crypto/Base64.ts"
import { utf8 } from "../../src/crypto/Bytes.ts"
import { NobleEngine } from "../../src/crypto/NobleEngine.ts"
import {
  isBodyOf,
  type RequestParts,
  readClaim,
  type SignatureHeaders,
  signRequest,
  verifyClaim,
  verifyRequest
} from "../../src/crypto/RequestSignature.ts"
import { flipBit } from "./vectors.ts"

const seed = NativeCrypto.sha256(utf8("device"))
const publicKey = NativeCrypto.ed25519.publicKey(seed)
const signer = { keyId: `dev_${"a".repeat(52)}`, seed, createdSeconds: 1_700_000_000, nonce: "b".repeat(26) }
const parts: RequestParts = {
  method: "POST",
  authority: "postern.example:8443",
  path: "/api/device/v1/poll",
  query: "?wait_ms=1000",
  contentType: "application/json"
}
const body = utf8('{"a":1}')
const headers = signRequest(NativeCrypto, parts, body, signer)

const judge = (change: {
  parts?: Partial<RequestParts>
  headers?: Partial<Record<keyof SignatureHeaders, string | undefined>>
  body?: Uint8Array
  key?: Uint8Array
}) => {
  const result = verifyRequest(
    NativeCrypto,
    { ...parts, ...change.parts },
    { ...headers, ...change.headers },
    change.body ?? body,
    change.key ?? publicKey
  )
  return Result.isFailure(result) ? result.failure.reason : "accepted"
}

const input = (from: string | RegExp, to: string) => {
  const changed = headers["signature-input"].replace(from, to)
  assert.notStrictEqual(changed, headers["signature-input"])
  return judge({ headers: { "signature-input": changed } })
}

describe("a signed request", () => {
  it("verifies under both engines and says who signed when", () => {
    for (const engine of [NobleEngine, NativeCrypto]) {
      assert.deepStrictEqual(signRequest(engine, parts, body, signer), headers)
      const claim = Result.getOrThrow(verifyRequest(engine, parts, headers, body, publicKey))
      assert.deepInclude(claim, {
        keyId: signer.keyId,
        nonce: signer.nonce,
        createdSeconds: signer.createdSeconds
      })
      assert.isTrue(verifyClaim(engine, claim, publicKey))
      assert.isTrue(isBodyOf(engine, claim, body))
      assert.isFalse(isBodyOf(engine, claim, utf8("other")))
    }
  })

  it("signs the base that RFC 9421, 2.5 describes", () => {
    const claim = Result.getOrThrow(readClaim(parts, headers))
    const digest = createHash("sha256").update(body).digest("base64")
    const expected = [
      '"@method": POST',
      '"@authority": postern.example:8443',
      '"@path": /api/device/v1/poll',
      '"@query": ?wait_ms=1000',
      `"content-digest": sha-256=:${digest}:`,
      '"content-type": application/json',
      '"@signature-params": ("@method" "@authority" "@path" "@query" "content-digest" "content-type");created=1700000000' +
        `;nonce="${signer.nonce}";keyid="${signer.keyId}";alg="ed25519";tag="postern-v1"`
    ].join("\n")
    assert.strictEqual(new TextDecoder().decode(claim.base), expected)
  })

  it("may lack query and body", () => {
    const bare = { ...parts, method: "GET", query: "", authority: "[::1]:80", path: "/" }
    const signed = signRequest(NativeCrypto, bare, new Uint8Array(0), signer)
    const claim = Result.getOrThrow(verifyRequest(NativeCrypto, bare, signed, new Uint8Array(0), publicKey))
    assert.include(new TextDecoder().decode(claim.base), '"@query": ?\n')
  })

  it("is bound to every part", () => {
    assert.strictEqual(judge({}), "accepted")
    assert.strictEqual(judge({ parts: { method: "PUT" } }), "signature_wrong")
    assert.strictEqual(judge({ parts: { authority: "evil.example" } }), "signature_wrong")
    assert.strictEqual(judge({ parts: { path: "/api/device/v1/health" } }), "signature_wrong")
    assert.strictEqual(judge({ parts: { query: "" } }), "signature_wrong")
    assert.strictEqual(judge({ headers: { "content-type": "text/plain" } }), "signature_wrong")
    assert.strictEqual(judge({ body: utf8('{"a":2}') }), "digest_wrong")
    const other = NativeCrypto.ed25519.publicKey(NativeCrypto.sha256(utf8("other")))
    assert.strictEqual(judge({ key: other }), "signature_wrong")
    const digest = signRequest(NativeCrypto, parts, utf8("x"), signer)["content-digest"]
    assert.strictEqual(judge({ headers: { "content-digest": digest }, body: utf8("x") }), "signature_wrong")
  })

  it("has no good signature once any of its bits is turned", () => {
    const bytes = decodeBase64(headers.signature.slice("postern=:".length, -1)) as Uint8Array
    for (let bit = 0; bit < 512; bit++) {
      const signature = `postern=:${encodeBase64(flipBit(bytes, bit))}:`
      assert.strictEqual(judge({ headers: { signature } }), "signature_wrong")
    }
  })

  it("is refused once any character of its headers is changed", () => {
    const names = ["content-digest", "content-type", "signature-input", "signature"] as const
    fc.assert(
      fc.property(
        fc.constantFrom(...names),
        fc.nat(),
        fc.integer({ min: 0x20, max: 0x7e }),
        (name, position, code) => {
          const value = headers[name]
          const at = position % value.length
          const changed = value.slice(0, at) + String.fromCharCode(code) + value.slice(at + 1)
          assert.strictEqual(judge({ headers: { [name]: changed } }) === "accepted", changed === value)
        }
      ),
      { numRuns: 500 }
    )
  })
})

describe("any other signature is refused", () => {
  it("for missing headers", () => {
    for (const name of Object.keys(headers)) {
      assert.strictEqual(judge({ headers: { [name]: undefined } }), "header_missing", name)
    }
  })

  it("for another set, order or doubling of components", () => {
    assert.strictEqual(input(' "content-type"', ""), "components_wrong")
    assert.strictEqual(input('"@method" "@authority"', '"@authority" "@method"'), "components_wrong")
    assert.strictEqual(input('"@method"', '"@method" "@method"'), "components_wrong")
    assert.strictEqual(input('"content-type"', '"content-type" "date"'), "components_wrong")
    assert.strictEqual(input('"@path"', '"@target-uri"'), "components_wrong")
    assert.strictEqual(input('"@query"', '"@query";req'), "components_wrong")
    assert.strictEqual(input('" "', '"  "'), "components_wrong")
    assert.strictEqual(input(/\(.*\)/, "()"), "components_wrong")
  })

  it("for other, missing, doubled or misplaced parameters", () => {
    for (const [from, to] of [
      [";created=1700000000", ""],
      [";created=1700000000", ";created=-1"],
      [";created=1700000000", ";created=01700000000"],
      [";created=1700000000", ";created=1700000000.0"],
      [/;nonce="[^"]*"/, ""],
      [/;nonce="[^"]*"/, ';nonce="short"'],
      [/;keyid="[^"]*"/, ""],
      [/;keyid="dev/, ';keyid="abc'],
      [';alg="ed25519"', ""],
      [';alg="ed25519"', ';alg="hmac-sha256"'],
      [';tag="postern-v1"', ""],
      [';tag="postern-v1"', ';tag="postern-v2"'],
      [/$/, ";expires=1800000000"],
      [/$/, ';tag="postern-v1"'],
      [/$/, " "],
      [";created", "; created"],
      [/(;created=1700000000)(;nonce="[^"]*")/, "$2$1"]
    ] as const) {
      assert.strictEqual(input(from, to), "parameters_wrong", `${from} -> ${to}`)
    }
  })

  it("for another label, or a second signature", () => {
    assert.strictEqual(input("postern=", "sig1="), "input_malformed")
    assert.strictEqual(input(/^/, "sig1=(), "), "input_malformed")
    assert.strictEqual(input(/$/, `, ${headers["signature-input"]}`), "parameters_wrong")
    assert.strictEqual(
      judge({ headers: { signature: `${headers.signature}, sig1=:AAAA:` } }),
      "signature_malformed"
    )
    assert.strictEqual(
      judge({ headers: { signature: headers.signature.replace("postern", "sig1") } }),
      "signature_malformed"
    )
    assert.strictEqual(judge({ headers: { signature: "postern=:AAAA:" } }), "signature_malformed")
    assert.strictEqual(
      judge({ headers: { signature: headers.signature.replace("==:", ":") } }),
      "signature_malformed"
    )
  })

  it("for another digest, or several", () => {
    const digest = headers["content-digest"]
    for (const changed of [
      digest.replace("sha-256", "sha-512"),
      `${digest}, ${digest}`,
      `sha-512=:AAAA:, ${digest}`,
      "sha-256=:AAAA:",
      digest.replace("=:", "="),
      ""
    ]) {
      assert.strictEqual(judge({ headers: { "content-digest": changed } }), "digest_malformed", changed)
    }
  })

  it("for parts that could be read in two ways", () => {
    for (const change of [
      { method: "post" },
      { method: "" },
      { authority: "Postern.example" },
      { authority: "postern.example:" },
      { authority: "user@postern.example" },
      { authority: "a.example\nb" },
      { path: "" },
      { path: "poll" },
      { path: "/poll?x=1" },
      { path: "/poll#x" },
      { path: "/po ll" },
      { path: "/pöll" },
      { path: '/poll\n"@query": ?' },
      { query: "x=1" },
      { query: "?x#y" },
      { query: "?x\ny" },
      { contentType: "text/plain\n" },
      { contentType: "" }
    ]) {
      const request = { ...parts, ...change }
      const type = { "content-type": request.contentType }
      assert.strictEqual(
        judge({ parts: request, headers: type }),
        "request_malformed",
        JSON.stringify(change)
      )
      assert.throws(() => signRequest(NativeCrypto, request, body, signer), RangeError)
    }
  })

  it("and none is made with a nonce, key id or time of another form", () => {
    for (const change of [
      { nonce: "short" },
      { keyId: 'x";alg="none' },
      { createdSeconds: 1.5 },
      { createdSeconds: -1 }
    ]) {
      assert.throws(() => signRequest(NativeCrypto, parts, body, { ...signer, ...change }), RangeError)
    }
  })
})

describe("http-message-sig, another implementation of RFC 9421", () => {
  const message = {
    kind: "request",
    method: parts.method,
    targetUri: `https://${parts.authority}${parts.path}${parts.query}`
  } as const
  const fieldsOf = (of: Partial<SignatureHeaders>) =>
    Object.entries(of).map(([name, value]) => ({ name, value: value as string }))
  const components = ["@method", "@authority", "@path", "@query", "content-digest", "content-type"]

  it("accepts ours, and refuses ours with a changed path", async () => {
    const verify = (targetUri: string) =>
      verifySignature(
        { ...message, targetUri, fields: fieldsOf(headers) },
        {
          label: "postern",
          policy: {
            algorithms: ["ed25519"],
            requiredComponents: components,
            requiredParameters: ["created", "nonce", "keyid", "alg", "tag"],
            now: signer.createdSeconds
          },
          resolveVerifier: () => ({
            algorithm: "ed25519",
            verify: (data, signature) => NobleEngine.ed25519.verify(signature, data, publicKey)
          })
        }
      )
    const verified = await verify(message.targetUri)
    assert.strictEqual(verified.parameters.tag, "postern-v1")
    const outcome = await verify(message.targetUri.replace("/poll", "/pole")).then(
      () => "accepted",
      (error: { code: string }) => error.code
    )
    assert.strictEqual(outcome, "VerificationFailed")
  })

  it("makes what we accept", () => {
    const { "content-digest": digest, "content-type": type } = headers
    const fields = fieldsOf({ "content-digest": digest, "content-type": type })
    const signed = createSignatureSync(
      { ...message, fields },
      {
        label: "postern",
        components,
        parameters: {
          created: signer.createdSeconds,
          nonce: signer.nonce,
          keyid: signer.keyId,
          alg: "ed25519",
          tag: "postern-v1"
        },
        signer: { algorithm: "ed25519", sign: (data) => NobleEngine.ed25519.sign(data, seed) }
      }
    )
    assert.strictEqual(
      judge({ headers: { signature: signed.signature, "signature-input": signed.signatureInput } }),
      "accepted"
    )
  })
})

import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { countCircuits, Descriptors, untilQuiet } from "../../../src/adapters/tor/OnionDescriptors.ts"

const address = "77ebi2wlcstob5oe45yhth7y6fiehqhkoo5nt6zmlzjn4oxvuqbuk7qd"
const host = `${address}.onion`
const event = (action: string, more = "") => `${action} ${address} UNKNOWN $0123~relay1 ${more}`

const track = () => {
  const descriptors = new Descriptors([host])
  descriptors.wanted(host, true)
  return descriptors
}

describe("the descriptor of a service", () => {
  it("is published as soon as one directory has it, and stays so while it is renewed", () => {
    const descriptors = track()
    assert.strictEqual(descriptors.of(host).state, "waiting")
    descriptors.take(event("CREATED"))
    descriptors.take(event("UPLOAD"))
    descriptors.take(event("UPLOAD"))
    assert.strictEqual(descriptors.of(host).state, "uploading")
    assert.isAbove(descriptors.waitMs, 0)
    descriptors.take(event("UPLOADED"))
    descriptors.take(event("FAILED", "REASON=UPLOAD_REJECTED"))
    assert.deepInclude(descriptors.of(host), { state: "published", uploads: 1, failures: 1 })
    descriptors.take(event("UPLOAD"))
    assert.strictEqual(descriptors.of(host).state, "published")
  })

  it.live("is not changed soon after an upload that begins while another one is waited for", () =>
    Effect.gen(function* () {
      const descriptors = track()
      descriptors.take(event("UPLOAD"))
      const firstMs = descriptors.waitMs
      const quiet = Effect.runFork(untilQuiet(descriptors))
      // The second one begins so much later, and the first wait cannot end before this test goes on.
      while (descriptors.waitMs > firstMs - 100);
      descriptors.take(event("UPLOAD"))
      yield* Fiber.join(quiet)
      assert.strictEqual(descriptors.waitMs, 0)
    })
  )

  it("has failed when every upload of a go did, although an older one stands", () => {
    const descriptors = track()
    for (const action of ["UPLOAD", "UPLOADED", "UPLOAD", "UPLOAD"])
      assert.isNull(descriptors.take(event(action)))
    assert.isNull(descriptors.take(event("FAILED", "REASON=UPLOAD_REJECTED")))
    assert.strictEqual(descriptors.take(event("FAILED", "REASON=UPLOAD_REJECTED")), host)
    assert.strictEqual(descriptors.of(host).state, "failed")
    descriptors.take(event("UPLOAD"))
    descriptors.take(event("UPLOADED"))
    assert.strictEqual(descriptors.of(host).state, "published")
  })

  it("is off once it is not wanted, and nothing that comes late changes that", () => {
    const descriptors = track()
    descriptors.take(event("UPLOAD"))
    descriptors.wanted(host, false)
    descriptors.take(event("UPLOADED"))
    assert.strictEqual(descriptors.of(host).state, "off")
  })

  it("of other services is not counted", () => {
    const descriptors = track()
    const other = address.replace("7", "a")
    assert.isNull(descriptors.take(`UPLOADED ${other} UNKNOWN $0123~relay1`))
    assert.isNull(descriptors.take(""))
    assert.strictEqual(descriptors.of(host).uploads, 0)
    assert.strictEqual(descriptors.of(`${other}.onion`).state, "off")
  })
})

describe("circuits", () => {
  it("are counted by service, the established ones alone", () => {
    const line = (purpose: string, state: string, of = address) =>
      `7 BUILT $AA~relay1 BUILD_FLAGS=IS_INTERNAL PURPOSE=${purpose} HS_STATE=${state} REND_QUERY=${of} TIME_CREATED=x`
    const status = [
      line("HS_SERVICE_INTRO", "HSSI_ESTABLISHED"),
      line("HS_SERVICE_INTRO", "HSSI_ESTABLISHED"),
      line("HS_SERVICE_INTRO", "HSSI_CONNECTING"),
      line("HS_SERVICE_REND", "HSSR_JOINED"),
      line("HS_SERVICE_REND", "HSSR_JOINED", address.replace("7", "a")),
      "8 BUILT $AA~relay1 PURPOSE=GENERAL",
      ""
    ].join("\n")
    assert.deepStrictEqual(countCircuits(status).get(host), { introductionPoints: 2, circuits: 1 })
    assert.strictEqual(countCircuits("").size, 0)
  })
})

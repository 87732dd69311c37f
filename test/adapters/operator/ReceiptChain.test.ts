import { assert, describe, it } from "@effect/vitest"
import { extendChain, forgottenBy, judgeReceipt } from "../../../src/adapters/operator/ReceiptChain.ts"
import { Incarnation } from "../../../src/schemas/Ids.ts"
import {
  deviceRecord,
  engine,
  orderId,
  otherDevice,
  signedOrder,
  signedReceipt,
  someDigest
} from "../../support/operators.ts"

const orders = [1, 2, 3].map((counter) => signedOrder(counter))
const first = signedReceipt(1, null, orders[0] as (typeof orders)[number])
const second = signedReceipt(2, first.digest, orders[1] as (typeof orders)[number])
const third = signedReceipt(3, second.digest, orders[2] as (typeof orders)[number])
const order = orders[0] as (typeof orders)[number]
const opened = { document: order.order, digest: order.digest }
const elsewhere = Incarnation.make("b".repeat(26))

describe("a device's chain of receipts", () => {
  it("is followed from its beginning, page by page", () => {
    const page = extendChain(engine, deviceRecord, [first.envelope, second.envelope])
    assert.isNull(page.alarm)
    assert.deepStrictEqual(page.head, { number: 2, digest: second.digest })
    const rest = extendChain(engine, { ...deviceRecord, last_receipt: page.head }, [
      second.envelope,
      third.envelope
    ])
    assert.deepStrictEqual(rest.head, { number: 3, digest: third.digest })
    assert.deepStrictEqual(
      rest.receipts.map((receipt) => receipt.document.order),
      [orderId(3)]
    )
  })

  it("may be shown again from a place that is known", () => {
    const record = { ...deviceRecord, last_receipt: { number: 2, digest: second.digest } }
    const page = extendChain(engine, record, [first.envelope, second.envelope, third.envelope])
    assert.isNull(page.alarm)
    assert.strictEqual(page.head?.number, 3)
  })

  it("of a ledger that was set back and accepted again goes on from wherever it begins, and is whole from there", () => {
    const restored = { ...deviceRecord, chain_open: true }
    const page = extendChain(engine, restored, [second.envelope, third.envelope])
    assert.isNull(page.alarm)
    assert.deepStrictEqual(page.head, { number: 3, digest: third.digest })
    const torn = extendChain(engine, restored, [first.envelope, third.envelope])
    assert.match(torn.alarm ?? "", /withholds receipt 2/)
  })

  const alarms: ReadonlyArray<readonly [string, Parameters<typeof extendChain>[2], RegExp]> = [
    ["a gap", [first.envelope, third.envelope], /withholds receipt 2/],
    ["a missing beginning", [second.envelope], /withholds receipt 1/],
    [
      "a receipt that continues another one",
      [first.envelope, signedReceipt(2, someDigest("0"), order).envelope],
      /does not continue/
    ],
    [
      "a receipt by another device",
      [signedReceipt(1, null, order, {}, otherDevice).envelope],
      /did not sign/
    ],
    ["a changed receipt", [{ ...first.envelope, signatures: second.envelope.signatures }], /did not sign/]
  ]
  it.each(alarms)("raises an alarm at %s, and keeps what was good before", (_, page, alarm) => {
    const extension = extendChain(engine, deviceRecord, page)
    assert.match(extension.alarm ?? "", alarm)
    assert.strictEqual(extension.head?.number ?? 0, page.length === 2 ? 1 : 0)
  })

  describe("over what a server does not keep", () => {
    const yearMs = 366 * 24 * 3_600_000
    const endedAtMs = second.receipt.ended_at_ms
    const cut = { prunedBelow: 2, restored: false, nowMs: endedAtMs + yearMs }

    it("begins late at an old cut, for who knows nothing and for who knows what lies below", () => {
      for (const last_receipt of [null, { number: 1, digest: first.digest }]) {
        const page = extendChain(
          engine,
          { ...deviceRecord, last_receipt },
          [second.envelope, third.envelope],
          cut
        )
        assert.isNull(page.alarm)
        assert.deepStrictEqual(page.head, { number: 3, digest: third.digest })
      }
    })

    it("does not begin late at a cut that is young, or elsewhere", () => {
      for (const excuse of [
        { ...cut, nowMs: endedAtMs + yearMs / 2 },
        { ...cut, prunedBelow: 3 },
        { ...cut, prunedBelow: null }
      ]) {
        const page = extendChain(engine, deviceRecord, [second.envelope, third.envelope], excuse)
        assert.match(page.alarm ?? "", /withholds receipt 1/)
      }
    })

    it("goes on over a restored server from the receipt that is known here alone, and nowhere else", () => {
      const restored = { prunedBelow: null, restored: true, nowMs: endedAtMs }
      const known = { ...deviceRecord, last_receipt: { number: 2, digest: second.digest } }
      const page = extendChain(engine, known, [first.envelope, third.envelope], restored)
      assert.isNull(page.alarm)
      assert.deepStrictEqual(page.head, { number: 3, digest: third.digest })
      assert.match(extendChain(engine, known, [first.envelope], restored).alarm ?? "", /forgot receipt 2/)
      const other = { ...deviceRecord, last_receipt: { number: 2, digest: someDigest("d") } }
      assert.match(extendChain(engine, other, [third.envelope], restored).alarm ?? "", /forgot receipt 2/)
      assert.match(
        extendChain(engine, deviceRecord, [first.envelope, third.envelope], restored).alarm ?? "",
        /withholds receipt 2/
      )
    })
  })

  it("notices two receipts of one number", () => {
    const record = { ...deviceRecord, last_receipt: { number: 1, digest: first.digest } }
    const other = signedReceipt(1, null, order, { exit_code: 3 })
    assert.match(extendChain(engine, record, [other.envelope]).alarm ?? "", /two different receipts/)
  })

  it("passes over receipts of a ledger that no longer counts", () => {
    const old = signedReceipt(1, null, order, { incarnation: elsewhere })
    const page = extendChain(engine, deviceRecord, [old.envelope, first.envelope])
    assert.isNull(page.alarm)
    assert.deepStrictEqual(page.head, { number: 1, digest: first.digest })
  })
})

describe("a job's receipt", () => {
  const judge = (
    receipt: Parameters<typeof judgeReceipt>[3]["receipt"],
    known = null as null | typeof first.digest
  ) => judgeReceipt(engine, deviceRecord, opened, { state: "succeeded", receipt }, known)

  it("is believed when device, order, payload, ledger and state are right", () => {
    const { alarms, receipt } = judge(first.envelope, first.digest)
    assert.deepStrictEqual(alarms, [])
    assert.strictEqual(receipt?.document.number, 1)
  })

  it("may be missing, but may not vanish", () => {
    assert.deepStrictEqual(judge(null), { receipt: null, alarms: [] })
    assert.match(judge(null, first.digest).alarms[0] ?? "", /no longer shows/)
  })

  const wrong: ReadonlyArray<readonly [string, Parameters<typeof judge>[0], RegExp]> = [
    ["another device", signedReceipt(1, null, order, {}, otherDevice).envelope, /not by that device/],
    ["another order", second.envelope, /about another order/],
    [
      "another payload",
      signedReceipt(1, null, order, { payload_digest: someDigest("1") }).envelope,
      /another payload/
    ],
    ["another ledger", signedReceipt(1, null, order, { incarnation: elsewhere }).envelope, /another ledger/],
    [
      "another state than the server says",
      signedReceipt(1, null, order, { state: "failed", reason: "exit_code", exit_code: 1 }).envelope,
      /the device's receipt says failed/
    ]
  ]
  it.each(wrong)("is not believed when it is of %s", (_, envelope, alarm) => {
    const { alarms, receipt } = judge(envelope)
    assert.isNull(receipt)
    assert.match(alarms.join("\n"), alarm)
  })

  it("is not believed when it was another one before", () => {
    const other = signedReceipt(1, null, order, { ended_at_ms: 1_800_000_000_999 })
    assert.match(judge(other.envelope, first.digest).alarms.join("\n"), /another receipt/)
  })

  it("of a refusal may speak of the payload that came instead", () => {
    const envelope = signedReceipt(1, null, order, {
      state: "rejected",
      reason: "payload_digest",
      payload_digest: someDigest("1"),
      exit_code: null
    }).envelope
    const { alarms } = judgeReceipt(
      engine,
      deviceRecord,
      opened,
      { state: "rejected", receipt: envelope },
      null
    )
    assert.deepStrictEqual(alarms, [])
  })
})

describe("a server's memory", () => {
  const record = { ...deviceRecord, last_order: { root_version: 1, counter: 5, digest: someDigest("5") } }
  const good = { nextCounter: 6, previous: someDigest("5") }

  it("may know more than this operator", () => {
    assert.deepStrictEqual(forgottenBy(record, good), [])
    assert.deepStrictEqual(forgottenBy(record, { nextCounter: 9, previous: someDigest("8") }), [])
    assert.deepStrictEqual(forgottenBy(deviceRecord, { nextCounter: 1, previous: null }), [])
  })

  it("may not know less", () => {
    assert.match(forgottenBy(record, { ...good, nextCounter: 5 }).join(), /forgot orders/)
    assert.match(forgottenBy(record, { ...good, previous: someDigest("6") }).join(), /another order number 5/)
    assert.match(forgottenBy(record, { ...good, previous: null }).join(), /another order number 5/)
  })

  it("must hold the newest receipt that was verified here", () => {
    const known = { ...deviceRecord, last_receipt: { number: 2, digest: second.digest } }
    for (const page of [[], [first.envelope], [third.envelope]]) {
      const extension = extendChain(engine, known, page)
      assert.match(extension.alarm ?? "", /forgot receipt 2/)
      assert.deepStrictEqual(extension.head, known.last_receipt)
    }
  })
})

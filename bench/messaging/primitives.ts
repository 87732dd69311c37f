/**
 * What the cryptographic primitives of one private message cost by themselves: two signatures verified (the envelope's and
 * the message's), one made, one box opened and one sealed, with everything that derives their keys. No protocol can do with
 * less, so the inverse is the limit.
 */
import { randomBytes } from "node:crypto"
import type { Engine } from "../../src/crypto/Engine.ts"
import { openHpke, sealHpke } from "../../src/crypto/Hpke.ts"
import { median } from "../measure.ts"
import { bodyBytes } from "./traffic.ts"

/** As long as the documents are that are signed and sealed. */
const document = new Uint8Array(bodyBytes + 500).fill(7)
const outside = new Uint8Array(bodyBytes * 2 + 900).fill(7)
const binding = { info: new Uint8Array(150), aad: new Uint8Array(350) }

/** Milliseconds of processor time that one message's primitives take, on one core; the median of some rounds. */
export const primitivesMs = (engine: Engine, messages: number, rounds: number): number => {
  const seed = new Uint8Array(randomBytes(32))
  const publicKey = engine.ed25519.publicKey(seed)
  const [inner, outer] = [engine.ed25519.sign(document, seed), engine.ed25519.sign(outside, seed)]
  const secret = new Uint8Array(randomBytes(32))
  const own = { secret, public: engine.x25519.publicKey(secret) }
  const box = sealHpke(engine, own.public, binding, document, new Uint8Array(randomBytes(32)))
  if (box === undefined) throw new Error("the bench's own key is none to seal to")
  const once = () => {
    const fresh = new Uint8Array(randomBytes(32))
    const isGood =
      engine.ed25519.verify(outer, outside, publicKey) &&
      openHpke(engine, own, binding, { enc: Uint8Array.from(box.enc), ciphertext: box.ciphertext }) !==
        undefined &&
      engine.ed25519.verify(inner, document, publicKey) &&
      sealHpke(engine, own.public, binding, document, fresh) !== undefined
    if (!isGood) throw new Error("a primitive failed")
    engine.ed25519.sign(outside, seed)
  }
  const times: Array<number> = []
  for (let round = -1; round < rounds; round++) {
    const before = process.cpuUsage()
    for (let index = 0; index < messages; index++) once()
    const { system, user } = process.cpuUsage(before)
    if (round >= 0) times.push((user + system) / 1_000 / messages)
  }
  return median(times)
}

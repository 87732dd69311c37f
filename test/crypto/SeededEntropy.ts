/**
 * Entropy for simulations: a seed and a path (an actor's) give one endless stream of bytes, the same in every run.
 * It lives with the tests, so that no program can pick it up.
 */
import { Effect, Layer } from "effect"
import { concatBytes, utf8 } from "../../src/crypto/Bytes.ts"
import { NobleEngine } from "../../src/crypto/NobleEngine.ts"
import { Entropy } from "../../src/ports/Entropy.ts"

const blockBytes = 1024

/** The service itself; each call of this function begins the stream anew. */
export const seededBytes = (seed: string, path: string): Entropy["Service"] => {
  const key = NobleEngine.sha256(utf8(JSON.stringify([seed, path])))
  let block = 0
  let held = new Uint8Array(0)
  const draw = (lengthBytes: number): Uint8Array => {
    while (held.length < lengthBytes) {
      const nonce = new Uint8Array(12)
      new DataView(nonce.buffer).setUint32(0, block++)
      const fresh = NobleEngine.chacha20poly1305
        .seal(key, nonce, new Uint8Array(blockBytes))
        .subarray(0, blockBytes)
      held = Uint8Array.from(concatBytes(held, fresh))
    }
    const taken = held.slice(0, lengthBytes)
    held = held.slice(lengthBytes)
    return taken
  }
  return { bytes: (lengthBytes) => Effect.sync(() => draw(lengthBytes)) }
}

/** The port, seeded. */
export const SeededEntropy = (seed: string, path: string): Layer.Layer<Entropy> =>
  Layer.sync(Entropy, () => seededBytes(seed, path))

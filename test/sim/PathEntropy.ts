/**
 * Entropy seeded per actor: each actor draws from a stream of its own, so that one more draw here changes nothing there.
 * The streams go on over restarts of the program: what was drawn once is not drawn again.
 */
import { Effect, Layer } from "effect"
import { CurrentLife } from "../../src/kernel/Fence.ts"
import { Entropy } from "../../src/ports/Entropy.ts"
import { seededBytes } from "../crypto/SeededEntropy.ts"

export const PathEntropy = (seed: string): Layer.Layer<Entropy> => {
  const streams = new Map<string, Entropy["Service"]>()
  return Layer.succeed(Entropy, {
    bytes: (lengthBytes) =>
      Effect.withFiber((fiber) => {
        const path = fiber.getRef(CurrentLife)?.path ?? "(outside)"
        const stream = streams.get(path) ?? seededBytes(seed, path)
        streams.set(path, stream)
        return stream.bytes(lengthBytes)
      })
  })
}

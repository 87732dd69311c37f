/**
 * Entropy from the operating system's secure generator.
 *
 * @module
 */
import { randomFillSync } from "node:crypto"
import { Effect, Layer } from "effect"
import { Entropy } from "../ports/Entropy.ts"

/**
 * The production source. It ignores every seeded `Random` in the context. The bytes lie in memory of their own,
 * not in Node's shared pool: a secret must not lie beside other people's bytes.
 */
export const SystemEntropy: Layer.Layer<Entropy> = Layer.succeed(Entropy, {
  bytes: (lengthBytes) => Effect.sync(() => randomFillSync(new Uint8Array(lengthBytes)))
})

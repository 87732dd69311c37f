/**
 * The port for secrets: keys, nonces, tokens, claim codes and unguessable ids come from here alone. Effect's
 * `Random` is for jitter and sampling; it can be guessed.
 *
 * @module
 */
import { Context, type Effect } from "effect"

/**
 * A source of secure bytes. Production provides `SystemEntropy` (the operating system's generator); a
 * simulation provides a source seeded per actor path, so that one seed gives one trace.
 *
 * `bytes(n)` yields `n` fresh bytes that belong to the caller. It cannot fail: a system without a working
 * generator is a defect, since nothing may go on without one.
 */
export class Entropy extends Context.Service<
  Entropy,
  {
    readonly bytes: (lengthBytes: number) => Effect.Effect<Uint8Array>
  }
>()("postern/ports/Entropy") {}

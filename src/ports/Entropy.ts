/**
 * The port for secrets: keys, nonces, tokens, claim codes and unguessable ids come from here alone. Effect's
 * `Random` is for jitter and sampling; it can be guessed.
 *
 * Libraries that would draw chance of their own, and why none of it is in what we make:
 *
 * - `@noble/*` draws for key generation only (`keygen`, `randomSecretKey`, `randomBytes`), which is not called: seeds
 *   and ephemeral keys are arguments, Ed25519 signatures are deterministic.
 * - `age-encryption` draws file keys, nonces and ephemeral keys; it is a peer in tests, and `PackageCipher` writes our
 *   files.
 * - `node:crypto` signs and seals without chance; only `SystemEntropy` calls its generator.
 * - `effect/crypto` (`SecureRandom`) and the global `crypto` are not used.
 * - TLS, SQLite and Tor draw for themselves inside their own walls; nothing of it becomes an id or a key of ours.
 *
 * A test reads all of `src` for calls of these generators.
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

/**
 * Which engine a program computes with: Node's own OpenSSL, unless the program is told otherwise, or it is missing or gives
 * a wrong answer (an OpenSSL restricted to FIPS has neither X25519 nor ChaCha20).
 *
 * @module
 */
import { Effect, Layer, Option, Schema } from "effect"
import type { Engine } from "../crypto/Engine.ts"
import { engineFlaw } from "../crypto/EngineCheck.ts"
import { NobleEngine } from "../crypto/NobleEngine.ts"
import { CryptoEngine } from "../ports/CryptoEngine.ts"
import { EngineChoice } from "../schemas/CryptoSettings.ts"
import type { Finding } from "../schemas/Finding.ts"
import { requirement } from "./doctor/Findings.ts"
import { NativeCrypto } from "./NativeCrypto.ts"

/** An engine and why it is this one. */
export interface EngineVerdict {
  readonly engine: Engine
  /** What is wrong with the native one where it was wanted; null where nothing is, or nobody wanted it. */
  readonly flaw: string | null
}

/** Chooses, after a test that takes a millisecond. */
export const chooseEngine = (choice: EngineChoice, native: Engine = NativeCrypto): EngineVerdict => {
  if (choice === "noble") return { engine: NobleEngine, flaw: null }
  const flaw = engineFlaw(native) ?? null
  return { engine: flaw === null ? native : NobleEngine, flaw }
}

/** An engine's name for people. */
export const engineText = ({ name }: Engine): string =>
  name === "native"
    ? `node:crypto (OpenSSL ${process.versions["openssl"] ?? "unknown"})`
    : "@noble (JavaScript)"

const decodeChoice = Schema.decodeUnknownOption(EngineChoice)

/** For programs without a configuration: what the environment says under the same name. */
const choiceOfEnvironment = (): EngineChoice =>
  Option.getOrElse(decodeChoice(process.env["POSTERN_CRYPTO_ENGINE"]), () => "auto")

/** Provides the engine; says where it is not the one that was wanted. */
export const ChosenEngine = (choice?: EngineChoice, native?: Engine): Layer.Layer<CryptoEngine> =>
  Layer.effect(
    CryptoEngine,
    Effect.suspend(() => {
      const { engine, flaw } = chooseEngine(choice ?? choiceOfEnvironment(), native)
      if (flaw === null) return Effect.succeed(engine)
      return Effect.as(
        Effect.logWarning(`node:crypto is not used, and cryptography is slow: its test failed: ${flaw}`),
        engine
      )
    })
  )

/** What the doctor says of it. */
export const engineFinding = (choice: EngineChoice, native?: Engine): Finding => {
  const is = requirement("crypto.engine", "a cryptographic engine that gives right answers")
  const { engine, flaw } = chooseEngine(choice, native)
  if (flaw !== null)
    return is.degraded(
      `${engineText(engine)}, ten to fifty times slower: node:crypto failed its test: ${flaw}`,
      "use a Node from nodejs.org, whose OpenSSL is whole and not restricted to FIPS"
    )
  return is.ok(`${engineText(engine)}, ${choice === "noble" ? "as configured" : "whose test passed"}`)
}

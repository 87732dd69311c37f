/**
 * The port that carries the engine of cryptographic primitives to actors and programs.
 *
 * @module
 */
import { Context } from "effect"
import type { Engine } from "../crypto/Engine.ts"

/** The engine in use: `NativeCrypto` in production, either one in tests (they judge alike). */
export class CryptoEngine extends Context.Service<CryptoEngine, Engine>()("postern/ports/CryptoEngine") {}

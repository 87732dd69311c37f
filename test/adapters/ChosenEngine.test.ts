import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Logger } from "effect"
import { ChosenEngine, chooseEngine, engineFinding, engineText } from "../../src/adapters/ChosenEngine.ts"
import { NativeCrypto } from "../../src/adapters/NativeCrypto.ts"
import type { Engine } from "../../src/crypto/Engine.ts"
import { NobleEngine } from "../../src/crypto/NobleEngine.ts"
import { CryptoEngine } from "../../src/ports/CryptoEngine.ts"
import type { EngineChoice } from "../../src/schemas/CryptoSettings.ts"

/** As an OpenSSL restricted to FIPS: it has no ChaCha20. */
const restricted: Engine = {
  ...NativeCrypto,
  chacha20poly1305: {
    ...NativeCrypto.chacha20poly1305,
    seal: () => {
      throw new Error("unsupported cipher")
    }
  }
}

/** The engine that a layer provides, and what it warned of. */
const chosen = (choice: EngineChoice, native?: Engine) =>
  Effect.gen(function* () {
    const said: Array<string> = []
    const logger = Logger.make<unknown, void>(
      ({ logLevel, message }) => void said.push(`${logLevel} ${message}`)
    )
    const { name } = yield* Effect.provide(
      Effect.map(CryptoEngine, (engine) => engine),
      ChosenEngine(choice, native).pipe(Layer.provide(Logger.layer([logger])))
    )
    return { name, said }
  })

describe("the engine of a program", () => {
  it.effect("is the native one, unless JavaScript is asked for", () =>
    Effect.gen(function* () {
      for (const choice of ["auto", "native"] as const)
        assert.deepStrictEqual(yield* chosen(choice), { name: "native", said: [] })
      assert.deepStrictEqual(yield* chosen("noble"), { name: "noble", said: [] })
      assert.deepStrictEqual(yield* chosen("noble", restricted), { name: "noble", said: [] })
    })
  )

  it.effect("is JavaScript where the native one fails its test, and that is said", () =>
    Effect.gen(function* () {
      for (const choice of ["auto", "native"] as const) {
        const { name, said } = yield* chosen(choice, restricted)
        assert.strictEqual(name, "noble")
        assert.strictEqual(said.length, 1)
        assert.match(said[0] ?? "", /^Warn node:crypto is not used.*unsupported cipher/)
      }
      assert.strictEqual(chooseEngine("auto", restricted).flaw, "unsupported cipher")
    })
  )

  it("is told by the doctor", () => {
    const good = engineFinding("auto")
    assert.deepStrictEqual([good.id, good.state], ["crypto.engine", "ok"])
    assert.include(good.reason, engineText(NativeCrypto))
    const own = engineFinding("noble")
    assert.strictEqual(own.state, "ok")
    assert.include(own.reason, engineText(NobleEngine))
    const bad = engineFinding("auto", restricted)
    assert.strictEqual(bad.state, "degraded")
    assert.match(bad.reason, /@noble.*unsupported cipher/)
    assert.notStrictEqual(bad.mend, "")
  })
})
